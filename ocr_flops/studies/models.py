"""Models side by side: what there are, and what one page costs on each of them, for the same text on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from ocr_flops.cost.models.learned import describe_learned, describe_replaced, find_program, kept_path, program_path
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import load_model
from ocr_flops.spec.reading import offered
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import ModelSpec
from ocr_flops.spec.workload import Column, Workload
from ocr_flops.timing.estimate import Estimate, estimate_run, time_run
from ocr_flops.timing.planning import SECONDS_PER_HOUR, largest_batch, with_best_batch
from ocr_flops.timing.timing import Timing

A4_PX = (1654, 2339)  # at 200 dpi
CHARACTERS = 3000  # of a page's text
ASSUMED_PER_TOKEN = 5.0  # characters of a token, where a model's tokenizer could not be read: those that could have 5.04 and 5.08
FACTORS = tuple(round(0.3 + 0.1 * step, 1) for step in range(18))  # of a page's sides, around it: of A4 at 200 dpi from 60 to 400 dpi
OUTPUTS = (0, 1, 2, 4, 8, 16, 32, 64, 100)  # thousands of tokens
CROPS = {"paddleocr_vl": 20}  # layout blocks of a page: OmniDocBench has more than 20 000 on 981 pages


def has_program(model: ModelSpec) -> bool:
    """Whether a model can be estimated without learning its class first."""
    return model.learned is None or program_path(model).is_file()


def compared_models() -> tuple[str, ...]:
    """Models that can be estimated at once."""
    return tuple(name for name in offered("model") if has_program(load_model(name)))


@dataclass(frozen=True)
class PageText:
    """One page, and how models read it.

    Args:
        width_px, height_px: its size, ints or columns of many pages.
        characters: of its text, which every model writes.
        per_token: characters of a token by model, where they are not those of its config.
        crops: crops that a model reads instead of the whole page, by model; `CROPS` where a model is not named.
    """

    width_px: Column = A4_PX[0]
    height_px: Column = A4_PX[1]
    characters: int = CHARACTERS
    per_token: Mapping[str, float] | None = None
    crops: Mapping[str, int] | None = None

    def characters_per_token(self, model: ModelSpec) -> float:
        """Characters of one of the model's output tokens."""
        given = (self.per_token or {}).get(model.name)
        return given or model.characters_per_token or ASSUMED_PER_TOKEN

    def crops_of(self, model: ModelSpec) -> int:
        """Crops that the model reads of this page, 1 for the page itself."""
        return (self.crops or {}).get(model.name, CROPS.get(model.name, 1))

    def workload(self, run: RunSpec, model: ModelSpec) -> Workload:
        """What a model is given of this page: the page, or as many strips across it of equal height, read side by side.

        Each strip's output is its part of the page's; nothing is counted for finding the strips.
        """
        crops = self.crops_of(model)
        tokens = -(-self.characters // (self.characters_per_token(model) * crops))
        height = np.maximum(self.height_px // crops, 1) if isinstance(self.height_px, np.ndarray) else max(self.height_px // crops, 1)
        rest = {"prompt_tokens": run.workload.prompt_tokens, "output_tokens": int(tokens), "batch_size": run.workload.batch_size * crops}
        if model.page_rule is None:
            return Workload.from_image(self.width_px, height, **rest)
        return Workload(0, image_width_px=self.width_px, image_height_px=height, page_rule=model.page_rule, **rest)

    def cut_words(self, models: Iterable[str]) -> list[str]:
        """What is assumed of models that read crops, in words."""
        counts = {model.label: self.crops_of(model) for model in map(load_model, models)}
        return [
            f"{label} reads {count} strips a page, found for nothing and decoded side by side, as a batch of {count} is"
            for label, count in counts.items()
            if count > 1
        ]

    def scaled(self, factors: np.ndarray) -> PageText:
        """The same page at other resolutions, with the same text."""
        width, height = (np.maximum(np.round(side * factors), 1).astype(np.int64) for side in (self.width_px, self.height_px))
        return replace(self, width_px=width, height_px=height)


def reading_words(page: PageText, models: Iterable[str]) -> str:
    """What is assumed of models, in words: characters of their tokens, and crops that they read instead of the page."""
    specs = [load_model(name) for name in models]
    by_number: dict[str, list[str]] = {}
    for model in specs:
        is_known = model.characters_per_token is not None or model.name in (page.per_token or {})
        number = f"{page.characters_per_token(model):.3g}{'' if is_known else ' (assumed)'}"
        by_number.setdefault(number, []).append(model.label)
    tokens = "; ".join(f"{number} for {', '.join(labels)}" for number, labels in by_number.items())
    return "; ".join([f"characters of a token: {tokens}", *page.cut_words(model.name for model in specs)])


def kernel_words(compared: pl.DataFrame) -> str:
    """Which attention kernels the models of `compare_models` run, in words; "" where none has a number."""
    by_kernel: dict[str, list[str]] = {}
    for row in compared.to_dicts() if "attention" in compared.columns else ():
        if row["attention"]:
            by_kernel.setdefault(row["attention"], []).append(row["label"])
    return (
        "attention kernels: " + "; ".join(f"{kernels} for {', '.join(labels)}" for kernels, labels in by_kernel.items())
        if by_kernel
        else ""
    )


def list_models() -> pl.DataFrame:
    """The models there are: parameters, image tokens of an A4 page at 200 dpi, limits of a page, whether their
    programs are shipped, evidence, sources of dimensions, and which attention kernels others are counted in place of."""
    rows = []
    for name in offered("model"):
        model = load_model(name)
        row: dict[str, Any] = {"model": name, "label": model.label, "replaced": None, **describe_program(model)}
        rule = model.learned.page_rule if model.learned else None
        tokens = rule.image_tokens(*A4_PX) if rule else Workload.from_image(*A4_PX).image_tokens
        limits = rule.limits if rule else "six resolution modes; gundam, as here: a view of 1024 px and 2 to 9 tiles of 640 px"
        rows.append(row | {"image_tokens": tokens, "limits": limits, "source": model.learned.source if model.learned else "by hand"})
    return pl.DataFrame(rows, infer_schema_length=None)


def describe_program(model: ModelSpec) -> dict[str, Any]:
    """A model's parameters, attention kernels, where its program is from and what its numbers rest on."""
    if not has_program(model):
        evidence = f"not learned yet: ocr-flops learn {model.name}"
        return {"parameters": None, "attention": None, "program": "not shipped", "evidence": evidence}
    config = RunConfig.resolve(model, "vendor", "transformers", "bf16", "dynamic", None)
    parameters = sum(config.parameters.values())
    if model.learned is None:
        evidence = "written by hand, equal to traces of the class"
        return {"parameters": parameters, "attention": "eager, sdpa, flash", "program": "shipped", "evidence": evidence}
    program = find_program(model)
    return {
        "parameters": parameters,
        "attention": ", ".join(dict.fromkeys(stage.attention for stage in program.stages)),
        "program": "learned here" if program_path(model) == kept_path(model) else "shipped",
        "evidence": describe_learned(model),
        "replaced": describe_replaced(config) or None,
    }


Timed = Callable[[RunSpec, PageText], tuple[Estimate, Timing | None]]  # a model's estimate of a page, and its time on the run's device


def time_page(run: RunSpec, page: PageText, on: Callable[[RunSpec, Estimate], Timing | None] = time_run) -> tuple[Estimate, Timing | None]:
    """A model's estimate of a page, or of columns of pages, and its time on the run's device, as `on` has it."""
    found = estimate_run(run, page.workload(run, run.model))
    return found, on(run, found)


def compare_models(
    run: RunSpec,
    models: Iterable[str],
    page: PageText,
    *,
    price_per_hour: float | None = None,
    timed: Timed = time_page,
    best_batch: bool = False,
) -> pl.DataFrame:
    """What one page costs on several models, a row each: those that run it first, cheapest first; the order changes with the batch.

    Args:
        run: everything but the model and the page's size; its device gives times.
        models: names of the group `model`.
        page: the page and its text.
        price_per_hour: of one device, in any currency.
        timed: estimates and times a page.
        best_batch: take of each model the batch with most expected pages a second that fits the device.

    Returns:
        columns model, label, parameters, attention (its kernels), batch_size (in pages), crops, image_tokens, output_tokens, tensor_flops,
        total_flops and io_bytes (each of one page), memory_bytes (of the whole batch) and fits; expected_ttft_seconds,
        expected_tpot_seconds and expected_pages_per_second with their ranges, expected_page_seconds (of the device a page),
        device_busy_share, gpu_hours_per_1000_pages and, with a price, cost_per_1000_pages with its range; time_basis; and reason: why
        there is no number, or why the device does not run it; one that does not fit has no pages a second, hours or cost.
    """
    rows = []
    for name in models:
        model, row = load_model(name), {}
        try:
            row = _page_row(replace(run, model=model), page, price_per_hour, timed, best_batch)
        except SpecError as problem:
            row = {"reason": str(problem)}
        rows.append({"model": name, "label": model.label, "reason": None, **row})
    wanted = sorted(rows, key=lambda row: (row["reason"] is not None, row.get("gpu_hours_per_1000_pages") or row.get("total_flops") or 0))
    columns = dict.fromkeys(column for row in wanted for column in row if column != "reason")
    return pl.DataFrame([{column: row.get(column) for column in (*columns, "reason")} for row in wanted], infer_schema_length=None)


def _page_row(run: RunSpec, page: PageText, price: float | None, timed: Timed, best_batch: bool) -> dict[str, Any]:
    """One model's row of `compare_models`."""
    (result, timing), crops = timed(run, page), page.crops_of(run.model)
    workload = result.workload
    if timing and best_batch and (largest := largest_batch(result, timing.hardware.memory_bytes)) >= crops:
        result = with_best_batch(timing, largest, {}, crops)
        timing, workload = replace(timing, estimate=result), result.workload
    pages = workload.batch_size // crops
    work = {name: sum(row[name] for row in result.stage_numbers.values()) // pages for name in ("tensor_flops", "total_flops", "io_bytes")}
    tokens = {"image_tokens": result.workload.image_tokens * crops, "output_tokens": workload.output_tokens * crops}
    parameters, needed = sum(result.config.parameters.values()), result.footprint.total_bytes
    kernels = ", ".join(dict.fromkeys(kernel for _, kernel in result.config.attention.kernels))
    row = {"parameters": parameters, "attention": kernels, "batch_size": pages, "crops": crops, **tokens, **work, "memory_bytes": needed}
    if timing is None:
        return row
    figures = timing.expected_figures()
    figures |= {name: value / crops for name, value in figures.items() if name.startswith("expected_pages") and value is not None}
    fits = bool(needed <= timing.hardware.memory_bytes)
    if not fits:
        figures |= {name: None for name in figures if name.startswith("expected_pages")}
        row["reason"] = f"does not fit: needs {needed / 1e9:.3g} GB"
    row |= {"fits": fits, **figures, "device_busy_share": timing.device_busy_share, "time_basis": timing.time_basis}
    row |= dict(zip(("expected_page_seconds", *COSTS), costs_of(figures, price), strict=True))
    return row


COSTS = ("gpu_hours_per_1000_pages", "cost_per_1000_pages", "cost_low_per_1000_pages", "cost_high_per_1000_pages")


def costs_of(figures: Mapping[str, Any], price: float | None) -> tuple[Any, ...]:
    """Seconds of the device for a page, its hours for a thousand, and, with a price an hour, what these cost with their range."""
    pages, low, high = (figures[f"expected_pages_per_second{part}"] for part in ("", "_low", "_high"))
    if pages is None:
        return (None,) * 5
    hours = [1000 / one / SECONDS_PER_HOUR for one in (pages, high, low)]
    return 1 / pages, hours[0], *(hour * price if price is not None else None for hour in hours)


def cost_by_size(
    run: RunSpec,
    models: Sequence[str],
    page: PageText,
    factors: Iterable[float],
    *,
    price_per_hour: float | None = None,
    timed: Timed = time_page,
) -> pl.DataFrame:
    """The same page at several resolutions, on several models: a row per model and resolution that its processor takes, by size.

    Args:
        run, models, page, price_per_hour, timed: as of `compare_models`; run has a device.
        factors: of the page's width and height.

    Returns:
        columns model, label, width_px, height_px, megapixels, image_tokens, expected_page_seconds with its range, and, with a price,
        cost_per_1000_pages with its range.
    """
    sizes = page.scaled(np.array(sorted(factors)))
    here = {"width_px": sizes.width_px, "height_px": sizes.height_px, "megapixels": sizes.width_px * sizes.height_px / 1e6}
    parts: list[dict[str, Any]] = []
    for name in models:
        one = replace(run, model=load_model(name))
        (found, timing), crops, count = timed(one, sizes), sizes.crops_of(one.model), len(sizes.width_px)
        figures = timing.expected_figures()
        figures |= {key: value / crops for key, value in figures.items() if key.startswith("expected_pages")}
        seconds, _, *costs = costs_of(figures, price_per_hour)
        parts.append(
            {"model": [name] * count, "label": [one.model.label] * count}
            | here
            | {
                "image_tokens": np.broadcast_to(found.workload.image_tokens * crops, count),
                "expected_page_seconds": seconds,
                "expected_page_low_seconds": 1 / figures["expected_pages_per_second_high"],
                "expected_page_high_seconds": 1 / figures["expected_pages_per_second_low"],
            }
            | (dict(zip(COSTS[1:], costs, strict=True)) if price_per_hour is not None else {})
        )
    return pl.DataFrame({column: np.concatenate([part[column] for part in parts]) for column in parts[0]})


def memory_by_output(run: RunSpec, models: Sequence[str], page: PageText, outputs: Sequence[int]) -> pl.DataFrame:
    """Memory of one batch at growing lengths of output, on several models: a row per model and length.

    Returns:
        columns model, label, output_tokens (of a page), kv_cache_bytes, memory_bytes.
    """
    frames = []
    for name in models:
        one = replace(run, model=load_model(name))
        found = estimate_run(one, replace(page.workload(one, one.model), output_tokens=np.array(outputs) // page.crops_of(one.model)))
        held = found.footprint
        columns = {"output_tokens": np.array(outputs), "kv_cache_bytes": held.kv_cache_bytes, "memory_bytes": held.total_bytes}
        frames.append(pl.DataFrame({"model": name, "label": one.model.label, **columns}))
    return pl.concat(frames)
