"""The controls in the sidebar, a group a function; each begins with what a link asks for."""

from __future__ import annotations

from typing import NamedTuple

import marimo as mo

from ocr_flops.app.setting import FIGURES, SIDE_BY_SIDE, Setting
from ocr_flops.app.tabs.elements import choice, labelled
from ocr_flops.spec import documents
from ocr_flops.spec.catalog import load_engine, load_hardware, modes, names
from ocr_flops.spec.workload import LIMITS

SOURCES = {"page size": "page", "image or PDF": "file", "grid by hand": "grid"}
ATTENTION = {"vendor's mix": "vendor", "eager": "eager", "sdpa": "sdpa", "flash": "flash", "all side by side": SIDE_BY_SIDE}
MODES = {one.label: one.name for one in modes()}
ENGINES = {load_engine(name).label: name for name in reversed(names("engine"))}
GPUS = {load_hardware(name).label: name for name in names("hardware")}
DTYPES = ["bf16", "fp16", "fp32"]
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
MAX_UPLOAD_BYTES = 50_000_000


def mode(setting: Setting) -> tuple[mo.ui.dropdown, mo.ui.dropdown]:
    """The resolution mode, and where the tile grid comes from."""
    return (
        choice(
            MODES,
            setting.mode,
            labelled("resolution mode", "Tiny to Large encode one view of the page. Gundam and Gundam-M add tiles cut from it."),
        ),
        choice(
            SOURCES,
            setting.source,
            labelled("tile grid from", "The vendor's rule picks the grid from the page's size; by hand it can be any."),
        ),
    )


def page(setting: Setting) -> tuple[mo.ui.slider, mo.ui.slider, mo.ui.file]:
    """The page's width and height, and a file to take them from."""
    width, height = (
        mo.ui.slider(min(16, side), max(8000, side), value=side, include_input=True, full_width=True, label=label)
        for side, label in (
            (setting.width_px, labelled("page width (px)", "A4 at 200 dpi is 1654 × 2339 px.")),
            (setting.height_px, labelled("page height (px)", "Up to 640 px on both sides the page is not tiled.")),
        )
    )
    size = f"Only its size in pixels is read; at most {MAX_UPLOAD_BYTES / 1e6:.0f} MB."
    upload = mo.ui.file(filetypes=list(documents.DOCUMENT_SUFFIXES), max_size=MAX_UPLOAD_BYTES, label=labelled("image or PDF", size))
    return width, height, upload


def document(found: documents.Document | None) -> tuple[mo.ui.number, mo.ui.number, bool]:
    """A PDF's page and resolution, and whether there is a PDF."""
    is_pdf = found is not None and found.unit == "pt"
    count = len(found.sizes) if is_pdf else 1
    page_number = mo.ui.number(1, count, step=1, value=1, full_width=True, label=labelled(f"page, of {count}", "Whose size is taken."))
    dpi = mo.ui.number(
        documents.MIN_DPI,
        documents.MAX_DPI,
        value=documents.DEFAULT_DPI,
        full_width=True,
        label=labelled("resolution (dpi)", "At which the page is rendered; the vendor's own script for PDFs uses 144."),
    )
    return page_number, dpi, is_pdf


def grid(setting: Setting) -> tuple[mo.ui.slider, mo.ui.slider]:
    """Columns and rows by hand."""
    return tuple(
        mo.ui.slider(1, max(32, count), value=count, include_input=True, full_width=True, label=label)
        for count, label in (
            (setting.columns, labelled("columns", "Tiles across the page. 1 × 1 means no tiles; the vendor's own grids have 2 to 9.")),
            (setting.rows, labelled("rows", "Tiles down the page.")),
        )
    )


def text(setting: Setting) -> tuple[mo.ui.number, mo.ui.slider, mo.ui.slider]:
    """Prompt and output tokens, and pages in a batch."""
    least, most = LIMITS["prompt_tokens"]
    prompt = mo.ui.number(
        least,
        most,
        value=setting.prompt_tokens,
        step=1,
        full_width=True,
        label=labelled("prompt (tokens)", f"Text beside the image, BOS included, up to {most:,}; the vendor's default prompt has 10."),
    )
    output, batch = (
        mo.ui.slider(steps=sorted(steps), value=value, show_value=True, full_width=True, label=label)
        for steps, value, label in (
            (
                {*range(0, 8193, 32), setting.output_tokens},
                setting.output_tokens,
                labelled("output (tokens)", "Tokens generated; each is one decode step."),
            ),
            ({*BATCHES, setting.batch_size}, setting.batch_size, labelled("batch (pages)", "Equal pages run together.")),
        )
    )
    return prompt, output, batch


class Software(NamedTuple):
    """Which code runs the model, and how."""

    attention: mo.ui.dropdown
    engine: mo.ui.dropdown
    dtype: mo.ui.dropdown
    cache: mo.ui.dropdown


def software(setting: Setting) -> Software:
    """Attention, engine, precision and cache."""
    return Software(
        choice(
            ATTENTION,
            setting.attention,
            labelled("attention", "What differs between modes is vector work, memory and traffic; matrix FLOPs are the same."),
        ),
        choice(
            ENGINES,
            setting.engine,
            labelled("engine", "The code that runs the model: transformers' own class, or the code published with the weights."),
        ),
        mo.ui.dropdown(
            DTYPES,
            value=setting.dtype,
            full_width=True,
            label=labelled("precision", "Of weights and activations. Does not change FLOPs; flash attention needs bf16 or fp16."),
        ),
        mo.ui.dropdown(
            ["dynamic", "static"],
            value=setting.cache,
            full_width=True,
            label=labelled("KV cache", "Dynamic grows by copying at every step, as both engines do; static is written in place."),
        ),
    )


def gpu(setting: Setting) -> mo.ui.dropdown:
    """The device."""
    return choice(
        GPUS,
        setting.gpu,
        labelled("GPU", "Dense datasheet peaks; the file of each device in configs/hardware names its sources."),
    )


def gpu_figures(setting: Setting, gpu: str, dtype: str) -> tuple[mo.ui.dictionary, dict[str, float | None]]:
    """A device's figures to be edited, in 10^12 units, and what is published.

    Args:
        setting: of the link, whose own figures are taken where it is about this device and precision.
        gpu: the device chosen.
        dtype: the precision chosen.
    """
    device = load_hardware(gpu)
    peaks = dict(device.matrix_flops_per_second)
    unknown = "" if dtype in peaks or dtype == "fp32" else f" {device.label} has no {dtype} figure: enter one."
    own = {name: getattr(device, name) for name in FIGURES[1:]}
    own[FIGURES[0]] = None if unknown else peaks.get(dtype) or device.vector_fp32_flops_per_second
    published = {name: value and value / 1e12 for name, value in own.items()}
    linked = setting if (setting.gpu, setting.dtype) == (gpu, dtype) else Setting()
    labels = (
        labelled("matrix (TFLOP/s)", f"Dense peak in {dtype}.{unknown}"),
        labelled("vector (TFLOP/s)", "fp32 peak of the vector units."),
        labelled("memory (TB/s)", "Peak bandwidth of the device's memory."),
        labelled("size (TB)", "Memory of the device; 0.024 is 24 GB."),
    )
    numbers = {
        name: mo.ui.number(value=(getattr(linked, name) or 0) / 1e12 or published[name], label=label)
        for name, label in zip(FIGURES, labels, strict=True)
    }
    return mo.ui.dictionary(numbers), published


def targets(setting: Setting) -> tuple[mo.ui.number, mo.ui.number, mo.ui.number]:
    """Targets for TTFT and TPOT, and the price of a device."""
    return (
        mo.ui.number(
            value=setting.ttft_ms,
            label=labelled("first token within (ms)", "Target for vision and prefill together; empty for none."),
        ),
        mo.ui.number(
            value=setting.tpot_ms,
            label=labelled("a token within (ms)", "Target for the mean time per output token; empty for none."),
        ),
        mo.ui.number(value=setting.price, label=labelled("price of a GPU hour", "In any currency; empty for none.")),
    )
