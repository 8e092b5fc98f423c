"""The tab Models: what the page costs on several models, for the same text on it."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache, cached_property, lru_cache
from html import escape
from typing import Any

import marimo as mo
import numpy as np
import polars as pl

from ocr_flops.app.tabs.elements import grid, labelled, plain_table, problem
from ocr_flops.app.views import Results
from ocr_flops.charts import Chart
from ocr_flops.charts.models import cost_by_model_chart, cost_by_size_chart
from ocr_flops.errors import SpecError
from ocr_flops.reports.images import provenance
from ocr_flops.reports.tables import models_table
from ocr_flops.spec.catalog import load_attention, load_engine, load_model
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import STAGES
from ocr_flops.studies import models
from ocr_flops.studies.models import PageText
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import Timing
from ocr_flops.units import attention_words


def models_controls() -> mo.ui.dictionary:
    """Which models, the text of the page, and what of that differs between models."""
    labels = {load_model(name).label: name for name in models.compared_models()}
    text = "Of the page's text, which every model writes; how many tokens that takes depends on its tokenizer."
    blocks = "PaddleOCR-VL reads layout blocks, not pages: here strips across the page of equal height, side by side."
    characters, crops = labelled("characters a page", text), labelled("blocks a page for PaddleOCR-VL", blocks)
    return mo.ui.dictionary(
        {
            "models": mo.ui.multiselect(labels, value=list(labels), full_width=True, label="models"),
            "characters": mo.ui.number(1, 100_000, value=models.CHARACTERS, full_width=True, label=characters),
            "crops": mo.ui.number(1, 200, value=models.CROPS["paddleocr_vl"], full_width=True, label=crops),
        }
    )


class Comparison:
    """What the tab shows of a setting; computed when it is first read.

    Args:
        results: of the setting.
        models: names.
        characters: of the page.
        crops: of the page, for PaddleOCR-VL.
    """

    def __init__(self, results: Results, models: Iterable[str], characters: int, crops: int):
        setting = results.setting
        self.results, self.models = results, list(models)
        size = (setting.workload.image_width_px, setting.workload.image_height_px)
        self.page = PageText(*(size if all(size) else (setting.width_px, setting.height_px)), characters, crops={"paddleocr_vl": crops})
        attention, engine = load_attention(setting.main_mode), load_engine(setting.engine)
        software = results.model, engine, attention, setting.workload, setting.dtype, setting.cache, setting.prefill_logits
        self.run = RunSpec(*software, STAGES, results.device)
        self.refused, prices, self.currency = "", {}, ""
        try:
            prices, self.currency = setting.hour_prices
        except SpecError as error:
            self.refused = f"{error}."
        self.options: dict[str, Any] = {"price_per_hour": prices.get(setting.gpu), "timed": self._time}
        self._time_sizes = cache(self._find_sizes)

    def _on(self, _: RunSpec, estimate: Estimate) -> Timing | None:
        return estimate.on(**self.results.conditions) if self.results.device else None

    def _time(self, run: RunSpec, page: PageText) -> tuple[Estimate, Timing | None]:
        """As of `time_page`; the page is timed together with the other sizes of it that are drawn, where a model takes them all."""
        if page is not self.page:
            return self._time_sizes(run.model.name)
        if self.results.device and not self.is_best:
            with suppress(SpecError):
                found = self._time_sizes(run.model.name)[1].at(models.FACTORS.index(1.0))
                return found.estimate, found
        return models.time_page(run, page, self._on)

    def _find_sizes(self, model: str) -> tuple[Estimate, Timing | None]:
        return models.time_page(replace(self.run, model=load_model(model)), self.page.scaled(np.array(models.FACTORS)), self._on)

    @property
    def is_best(self) -> bool:
        """Whether each model has its best batch; without a device there is none."""
        return self.results.setting.plan_batch == "best" and self.results.device is not None

    def words(self, is_best: bool) -> str:
        """The page, and what runs the models, in a line; at the batch that is set, or each at its best."""
        page, run = self.page, self.run
        batch = "each at the batch with most pages a day that fits" if is_best else f"batch {run.workload.batch_size}"
        size = f"One page of {page.width_px} × {page.height_px} px with {page.characters:,} characters, {batch}"
        return f"{size}; {run.engine.name}, {attention_words(run.attention.name)}, {run.dtype}"

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows of `compare_models`."""
        return models.compare_models(self.run, self.models, self.page, **self.options, best_batch=self.is_best)


def compared(results: Results, models: list[str], characters: int, crops: int) -> Comparison:
    """What controls choose; the last four are kept, as chart and table are of the same."""
    return _comparison(results, tuple(models), characters, crops)


_comparison = lru_cache(maxsize=4)(Comparison)


def models_chart(results: Results, inputs: dict[str, Any]) -> list[Chart]:
    """The cost of the page by model, and against its size at the batch that is set; none without times."""
    found = compared(results, **inputs)
    there = found.frame.head(found.frame["reason"].null_count()) if inputs["models"] else pl.DataFrame()  # others are last
    if results.device is None or there.is_empty():
        return []
    bars = cost_by_model_chart(there, found.run, found.page, found.currency)
    try:
        points = models.cost_by_size(found.run, there["model"].to_list(), found.page, models.FACTORS, **found.options)
    except SpecError:
        return [bars]
    return [bars, cost_by_size_chart(points, found.run, found.page)]


def provenance_of(results: Results, inputs: dict[str, Any]) -> list[str]:
    """What each of `models_chart` says of itself where it is taken away."""
    found, where = compared(results, **inputs), results.hardware.label if results.hardware else "no device"
    named = ", ".join(load_model(name).label for name in found.models)
    return [provenance(f"{named}. {found.words(is_best)}; {where}") for is_best in (found.is_best, False)]


def compared_models(results: Results, inputs: mo.ui.dictionary, targets: mo.ui.dictionary) -> mo.Html:
    """The controls, a table of the models, and what it assumes.

    Args:
        results: of the setting.
        inputs: of `models_controls`.
        targets: of `target_controls`, of which batch and prices are shared with *Plan*.
    """
    first = grid(*inputs.elements.values(), *(targets.elements[name] for name in ("plan_batch", "prices")))
    if not inputs.value["models"]:
        return mo.vstack([first, mo.md("Choose a model.")])
    found = compared(results, **inputs.value)
    basis = f"; expected times rest on {results.main_timing.time_basis}" if results.main_timing else ""
    words = [
        f"{found.words(found.is_best)}{basis}; the order of models can change with the batch.",
        *(f"{kernels}." for kernels in [models.kernel_words(found.frame)] if kernels),
        f"Of the text: {models.reading_words(found.page, found.models)}.",
    ]
    table = plain_table(models_table(found.frame, found.currency), pagination=False)
    wrong = [problem("Prices were not used.", found.refused, kind="warn")] if found.refused else []
    return mo.vstack([first, *wrong, table, mo.Html("".join(f"<p><small>{escape(one)}</small></p>" for one in words))])
