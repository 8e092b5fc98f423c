"""The controls of the app, named as the fields of `Setting` that they set; each begins with what a link asks for."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import marimo as mo

from ocr_flops.app.setting import FIGURES, HOST_US, OWN_DTYPE, OWN_HOST, REACHED, SIDE_BY_SIDE, Setting
from ocr_flops.app.spot_checks import SCOPES
from ocr_flops.app.tabs.elements import choice, labelled
from ocr_flops.spec import documents
from ocr_flops.spec.catalog import load_engine, load_hardware, load_host, load_model, modes, names
from ocr_flops.spec.host import Ranged
from ocr_flops.spec.specs import FP8
from ocr_flops.spec.workload import LIMITS
from ocr_flops.studies.models import compared_models

SOURCES = {"page size": "page", "image or PDF": "file", "grid by hand": "grid"}
ATTENTION = {"the engine's own": "vendor", "eager": "eager", "sdpa": "sdpa", "flash": "flash", "all side by side": SIDE_BY_SIDE}
PLAN_BATCH = {"as set": "set", "best of each": "best"}
MODES = {one.label: one.name for one in modes()}
ENGINES = {load_engine(name).label: name for name in reversed(names("engine"))}
HOSTS = {"the engine's own": OWN_HOST} | {load_host(name).label: name for name in names("host")}
PRECISIONS = {"as everything else": OWN_DTYPE, "fp8": FP8}
GPUS = {load_hardware(name).label: name for name in names("hardware")}
PAGES = {  # width and height in px
    "A4 at 150 dpi": (1240, 1754),
    "A4 at 200 dpi": (1654, 2339),
    "A4 at 300 dpi": (2480, 3508),
    "Letter at 200 dpi": (1700, 2200),
    "slide, 1920 × 1080": (1920, 1080),
    "receipt, 80 × 200 mm at 200 dpi": (630, 1575),
}
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
OUTPUTS = 0, 8192
UNITS = dict.fromkeys(FIGURES, 1e12) | dict.fromkeys(REACHED, 0.01) | dict.fromkeys(HOST_US, 1.0)  # of the fields, in those of `Setting`
Fields = tuple[mo.ui.dictionary, dict[str, float | None]]  # and what they hold where nobody has set them
MAX_UPLOAD_BYTES = 50_000_000  # where no server says another


def model_control(setting: Setting) -> mo.ui.dropdown:
    """The model; all but DeepSeek-OCR were learned from traces of their class, and take the page by their own processor's rule."""
    labels = {load_model(name).label: name for name in compared_models()}
    explanation = "Another model keeps page, GPU and lengths; what it makes of the page is its own processor's rule."
    return choice(labels, setting.model, "model", explanation)


def encoding_controls(setting: Setting) -> tuple[mo.ui.dropdown, mo.ui.dropdown]:
    """The resolution mode, and where the tile grid comes from."""
    mode = "Tiny to Large encode one view of the page. Gundam and Gundam-M add tiles cut from it."
    source = "The tile rule picks the grid from the page's size; by hand it can be any."
    return choice(MODES, setting.mode, "resolution mode", mode), choice(SOURCES, setting.source, "tile grid from", source)


def size_controls(size: tuple[int, int], set_size: Callable[[tuple[int, int]], None]) -> tuple[mo.ui.dropdown, mo.ui.dictionary]:
    """A list of common pages, each of which sets the page's size once, and that size.

    Args:
        size: in px, to begin with.
        set_size: makes these controls anew with another size.
    """
    label = labelled("a common page", "Sets width and height, which can then be moved.")
    common = mo.ui.dropdown(PAGES, full_width=True, label=label, on_change=lambda chosen: set_size(chosen) if chosen else None)
    width = _slider(16, 8000, size[0], "page width (px)", "A4 at 200 dpi is 1654 × 2339 px.")
    height = _slider(16, 8000, size[1], "page height (px)", "Gundam and Gundam-M cut no tiles from a page of at most 640 px a side.")
    return common, mo.ui.dictionary({"width_px": width, "height_px": height})


def workload_controls(setting: Setting) -> mo.ui.dictionary:
    """The grid set by hand, tokens, batch, attention and cache."""
    most_prompt = LIMITS["prompt_tokens"][1]
    prompt = f"Text beside the image, BOS included, up to {most_prompt:,}; the published default prompt has 10."
    attention = "What differs between modes is vector work, memory and traffic; matrix FLOPs are the same."
    cache = "Dynamic grows by a copy at every step, the default of transformers and the published code; static is written in place."
    weights = "Of the decoder's linear layers and experts, in vLLM of CLIP's too; fp8 takes more kernels and needs a GPU with fp8."
    blocks = "An engine that serves keeps keys and values in blocks, in the precision of the run or in half as many bytes."
    grid = "Tiles across the page. 1 × 1 means no tiles; the rule's own grids have 2 to 9."
    return mo.ui.dictionary(
        {
            "columns": _slider(1, 32, setting.columns, "columns", grid),
            "rows": _slider(1, 32, setting.rows, "rows", "Tiles down the page."),
            "prompt_tokens": _number(setting.prompt_tokens, "prompt (tokens)", prompt, 0, most_prompt),
            "output_tokens": _slider(*OUTPUTS, setting.output_tokens, "output (tokens)", "Tokens generated; each is one decode step."),
            "batch_size": _steps(BATCHES, setting.batch_size, "batch (pages)", "Equal pages run together."),
            "attention": choice(ATTENTION, setting.attention, "attention", attention),
            "cache": choice(("dynamic", "static"), setting.cache, "KV cache", cache),
            "engine_weights": choice(PRECISIONS, setting.engine_weights, "weights", weights),
            "engine_cache": choice(PRECISIONS, setting.engine_cache, "KV cache", blocks),
        }
    )


def engine_controls(setting: Setting) -> mo.ui.dictionary:
    """The code that runs the model, and what issues its operators, which together decide the host's figures."""
    engine = (
        "The code that runs the model: transformers' own class, the code published with the weights, or an engine that serves, as read "
        "in its sources (modelled: nothing here runs it)."
    )
    host = "How operators are issued: one by one by Python, which a fast GPU waits for, or recorded once and replayed as a graph."
    return mo.ui.dictionary(
        {
            "engine": choice(ENGINES, setting.engine, "engine", engine),
            "host": choice(HOSTS, setting.host, "operators issued", host),
        }
    )


def device_controls(setting: Setting) -> mo.ui.dictionary:
    """The device and the precision, which together decide the figures that there are."""
    dtype = "Of weights and activations. Does not change FLOPs; flash attention needs bf16 or fp16."
    gpu = "Dense datasheet peaks; the file of each device in configs/hardware names its sources."
    return mo.ui.dictionary(
        {
            "dtype": choice(("bf16", "fp16", "fp32"), setting.dtype, "precision", dtype),
            "gpu": choice(GPUS, setting.gpu, "GPU", gpu),
        }
    )


def figure_controls(setting: Setting, gpu: str, dtype: str) -> Fields:
    """A device's figures to be edited in `UNITS`, the part of its peaks that kernels reach among them, and those published.

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
    linked = setting if (setting.gpu, setting.dtype) == (gpu, dtype) else Setting()
    labels = (
        ("matrix (TFLOP/s)", f"Dense peak in {dtype}.{unknown}"),
        ("vector (TFLOP/s)", "fp32 peak of the vector units."),
        ("memory (TB/s)", "Peak bandwidth of the device's memory."),
        ("size (TB)", "Memory of the device; 0.024 is 24 GB."),
        *((f"{name} reached (%)", "The part of this peak that kernels reach.") for name in ("matrix", "vector", "memory")),
    )
    return _figure_fields(linked, own, dict(zip((*FIGURES, *REACHED), labels, strict=True)))


def host_figure_controls(setting: Setting, engine: str, host: str) -> Fields:
    """A host's figures to be edited, in microseconds, and its own.

    Args:
        setting: of the link, whose own figures are taken where it is about this engine and host.
        engine: the engine chosen.
        host: the host chosen.
    """
    linked = setting if (setting.engine, setting.host) == (engine, host) else replace(Setting(), engine=engine, host=host)
    labels = {
        "operator_us": ("operator (µs)", "What Python and the dispatcher take on the host for one operator."),
        "launch_us": ("launch (µs)", "What the host takes to launch one kernel, or one graph."),
    }
    return _figure_fields(linked, {}, labels)


def _figure_fields(linked: Setting, own: dict[str, float | None], labels: dict[str, tuple[str, str]]) -> Fields:
    """Fields in `UNITS`, and what they hold where nobody has set them.

    Args:
        linked: what they begin with.
        own: the device's figures where nobody has set them; all others have a range and a source.
        labels: of the fields, each with its explanation.
    """
    fields, published = {}, {}
    for name, (label, explanation) in labels.items():
        default = own[name] if name in own else linked.default(name)
        if isinstance(default, Ranged):
            shown = Ranged(*(float(f"{one / UNITS[name]:.4g}") for one in default[:3]))
            explanation += f" Unless set here, or fitted to timed runs of this GPU, {shown}{default.source and f'; {default.source}'}."
            default = shown.value * UNITS[name]
        given = default if getattr(linked, name) is None else getattr(linked, name)
        published[name], value = (one if one is None else round(one / UNITS[name], 12) for one in (default, given))
        fields[name] = mo.ui.number(value=value, full_width=True, label=labelled(label, explanation))
    return mo.ui.dictionary(fields), published


def edited_figures(figures: dict[str, float | None], published: dict[str, float | None]) -> dict[str, float]:
    """The figures that differ from those published, as fields of `Setting`.

    Args:
        figures: what `figure_controls` or `host_figure_controls` say.
        published: as these return them.
    """
    return {name: round(value * UNITS[name], 12) for name, value in figures.items() if value is not None and value != published[name]}


def target_controls(setting: Setting) -> mo.ui.dictionary:
    """What the plan is for: pages, devices, targets and prices."""
    own = labelled("prices of GPU hours", "By GPU, and the currency, as in: l4=0.8 a100_40gb=1.6 USD. ocr-flops list hardware names them.")
    return mo.ui.dictionary(
        {
            "ttft_ms": _number(setting.ttft_ms, "first token within (ms)", "Target for vision and prefill together; empty for none."),
            "tpot_ms": _number(setting.tpot_ms, "a token within (ms)", "Target for the mean time per output token; empty for none."),
            "pages": mo.ui.number(1, 1e15, value=setting.pages, full_width=True, label=labelled("pages", "That are to be read.")),
            "gpus": _number(setting.gpus, "GPUs", "Of a kind, that share the pages.", 1, 1_000_000),
            "plan_batch": choice(PLAN_BATCH, setting.plan_batch, "batch", "As set, or of each GPU the one with most pages a second."),
            "prices": mo.ui.text(setting.prices, "l4=0.8 h100_sxm=3 USD", full_width=True, label=own),
        }
    )


def spot_check_controls() -> mo.ui.dictionary:
    """Where the model is counted, and which points."""
    devices = {"cuda if present, else meta": "auto", "meta (exact, no GPU)": "meta", "cpu (slow, 7 GB)": "cpu"}
    scope = mo.ui.radio(list(SCOPES), value=SCOPES[0], inline=True, label="points")
    return mo.ui.dictionary({"device": _device(devices), "scope": scope})


def timing_controls() -> mo.ui.dictionary:
    """Where the model is timed."""
    return mo.ui.dictionary({"device": _device({"cuda if present, else cpu": "auto", "cuda": "cuda", "cpu (minutes, 7 GB)": "cpu"})})


def others_control() -> mo.ui.switch:
    """Whether charts show, faint, what was measured with other settings."""
    about = "Points of spot checks and records that ran something else than what is shown."
    return mo.ui.switch(label=labelled("also what was measured with other settings", about))


def upload_control(meta: Mapping[str, Any]) -> mo.ui.file:
    """A file whose page gives the size.

    Args:
        meta: what the server says of itself, its limit on uploads among it.
    """
    most = meta.get("max_upload_bytes", MAX_UPLOAD_BYTES)
    size = f"Only its size in pixels is read; at most {most / 1e6:.0f} MB."
    return mo.ui.file(filetypes=list(documents.DOCUMENT_SUFFIXES), max_size=most, label=labelled("image or PDF", size))


def pdf_controls(found: documents.Document | None) -> tuple[mo.ui.dictionary, list[Any]]:
    """The page of a file and the resolution it is rendered at, and those of the two that the sidebar shows: none where it is no PDF."""
    is_pdf = found is not None and found.unit == "pt"
    count = len(found.sizes) if is_pdf else 1
    dpi = labelled("resolution (dpi)", "At which the page is rendered; the published script for PDFs uses 144.")
    inputs = mo.ui.dictionary(
        {
            "number": _number(1, f"page, of {count}", "Whose size is taken.", 1, count),
            "dpi": mo.ui.number(documents.MIN_DPI, documents.MAX_DPI, value=documents.DEFAULT_DPI, full_width=True, label=dpi),
        }
    )
    return inputs, list(inputs.elements.values()) if is_pdf else []


def _device(devices: Mapping[str, str]) -> mo.ui.dropdown:
    return mo.ui.dropdown(devices, value=next(iter(devices)), label="device")


def _slider(least: int, most: int, value: int, label: str, explanation: str) -> mo.ui.slider:
    """A slider with a field beside it; a link may go beyond its ends."""
    ends = min(least, value), max(most, value)
    return mo.ui.slider(*ends, value=value, include_input=True, full_width=True, label=labelled(label, explanation))


def _steps(steps: Iterable[int], value: int, label: str, explanation: str) -> mo.ui.slider:
    """A slider over some values, that of a link among them."""
    ordered = sorted({*steps, value})
    return mo.ui.slider(steps=ordered, value=value, show_value=True, full_width=True, label=labelled(label, explanation))


def _number(value: float | None, label: str, explanation: str, least: int | None = None, most: int | None = None) -> mo.ui.number:
    """A field for a number, whole between bounds, any without."""
    return mo.ui.number(least, most, step=None if least is None else 1, value=value, full_width=True, label=labelled(label, explanation))
