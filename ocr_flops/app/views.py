"""What is evaluated and drawn for a setting: its numbers, and the charts of each view."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import polars as pl

from ocr_flops import charts
from ocr_flops.app import spot_checks
from ocr_flops.app.records_overlay import OnRecord, conditions
from ocr_flops.app.setting import FIGURES, Setting
from ocr_flops.app.spot_checks import STORE
from ocr_flops.app.tabs import OVERLAID
from ocr_flops.charts import Chart
from ocr_flops.charts.savings_by_tiles import MEASURES, by_tiles
from ocr_flops.charts.timeline import timelines
from ocr_flops.charts.times import halves
from ocr_flops.errors import SpecError
from ocr_flops.evidence.published import read_accuracy
from ocr_flops.evidence.records.cache import RECORDS
from ocr_flops.reports.images import provenance
from ocr_flops.spec.catalog import load_engine, modes
from ocr_flops.spec.specs import HardwareSpec, ModelSpec
from ocr_flops.timing.estimate import Estimate, sweep
from ocr_flops.timing.planning import largest_batch
from ocr_flops.timing.serving.steady import ENGINE, Server, prepare
from ocr_flops.timing.timing import Timing
from ocr_flops.units import seconds, si

MOST_OVERLAID = 24  # results that charts show, the latest: as many as a run over all grids of the tile rule brings, and one more


@dataclass(frozen=True, eq=False)
class Results:
    """A setting and what has been measured; numbers are computed when they are first read.

    Args:
        model: from `load_model`.
        setting: what the controls say.
        measured: frames of `spot_checks.build_frame`, oldest first.
        on_record: what records say of the setting; None without any.
        with_others: whether charts show, faint, what was measured with other settings, too.

    Raises:
        SpecError: when `estimates` is read first, naming the field, the value and what is allowed.
    """

    model: ModelSpec
    setting: Setting
    measured: Sequence[pl.DataFrame] = ()
    on_record: OnRecord | None = None
    with_others: bool = False

    @cached_property
    def estimates(self) -> list[Estimate]:
        """The point in every attention mode that is shown."""
        return self.setting.estimates(self.model)

    @cached_property
    def main(self) -> Estimate:
        """The point in the mode that single figures are of."""
        return self.estimates[0] if len(self.estimates) == 1 else self.setting.estimate(self.model, self.setting.main_mode)

    @cached_property
    def main_timing(self) -> Timing | None:
        """`main` on the device; None where there are no times."""
        return self.timings[0] if len(self.timings) == 1 else self.main.on(**self.conditions) if self.device else None

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """What times hold under, as keywords of `Estimate.on`; raises as `Setting.conditions`."""
        return self.on_record.conditions if self.on_record else self.setting.conditions

    @cached_property
    def without_times(self) -> str | None:
        """Why there are no times; None where there are."""
        try:
            self.conditions  # noqa: B018
        except SpecError as error:
            return str(error)
        return None

    @property
    def device(self) -> HardwareSpec | None:
        """The device; None where it gives no times."""
        return None if self.without_times else self.setting.device

    @cached_property
    def hardware(self) -> HardwareSpec | None:
        """The device, whose memory counts also where it gives no times; None where its figures are none."""
        try:
            return self.setting.hardware
        except SpecError:
            return None

    @cached_property
    def timings(self) -> list[Timing]:
        """`estimates` on the device; empty where there are no times."""
        return [one.on(**self.conditions) for one in self.estimates] if self.device else []

    @property
    def time_basis(self) -> str:
        """What the expected times rest on, and the roofline and the bound beside them, in sentences; "" without any."""
        if (timing := self.main_timing) is None:
            return ""
        token = "" if timing.tpot_seconds is None else f", {seconds(timing.tpot_seconds)} a token"
        first, bound = seconds(timing.ttft_seconds), seconds(timing.bound_ttft_seconds)
        return (
            f"The expected times rest on: {timing.time_basis}. The device alone, at its peaks (roofline): "
            f"{first} to the first token{token}; no implementation takes less than {bound} to the first token."
        )

    @property
    def provenance(self) -> str:
        """What charts of the setting say of themselves where they are taken away: the setting, the version, the date."""
        return provenance(self.setting.describe(self.model, self.hardware))

    def serve(self, setting: Setting, hardware: HardwareSpec, **options: Any) -> Server:
        """The engine of a setting, with options, serves its page on a device; under what the sidebar says, where it has this engine.

        Raises:
            SpecError: as `prepare`.
        """
        is_own = self.setting.engine == setting.engine
        lanes = conditions(self.model, setting) if is_own else {"host": setting.host_spec, "efficiency": setting.efficiency}
        runs = {name: lanes.get(name) for name in ("host", "efficiency")} | {"dtype": setting.dtype}
        runs |= {"attention": self.main.config.attention.name if is_own else "vendor"}
        engine = setting.engine_spec if is_own else load_engine(setting.engine)
        return prepare(self.model, setting.workload, hardware, engine=engine, options=options, **runs)

    @cached_property
    def served_modes(self) -> tuple[dict[str, charts.ModePages], dict[str, list[str]]]:
        """What an engine that serves makes of the page in each mode, the setting's where it serves, and why other modes have nothing."""
        setting, engine = self.setting, self.setting.engine if self.setting.engine_spec.block_tokens else ENGINE
        served = replace(setting, engine=engine, batch_size=1, output_tokens=max(1, setting.output_tokens))
        if setting.dtype == "fp32":  # kernels that serve take 16 bit, of which a peak that was edited is not
            served = replace(served, dtype="bf16" if "bf16" in self.hardware.dtypes else "fp16", **{FIGURES[0]: None})

        def serve(mode: str) -> charts.ModePages:
            server = self.serve(replace(served, mode=mode), served.device)
            found = server.solve()
            return charts.ModePages(server.config, server.pages[0].workload, found.pages_per_day, found.limited_by)

        return _in_each_mode(serve)

    def in_mode(self, mode: str, **changed: Any) -> Timing:
        """The setting in another mode, on the device."""
        one = replace(self.setting, mode=mode, **changed)
        return one.estimate(self.model, one.main_mode).on(**self.conditions)

    @cached_property
    def modules(self) -> pl.DataFrame:
        """The module frames of all attention modes that are shown."""
        return pl.concat([one.modules for one in self.estimates])

    @cached_property
    def beside(self) -> list[dict[str, Any]]:
        """Rows of the latest results, told apart by what they share with the setting."""
        counted = self.on_record.counted if self.on_record else ()
        return spot_checks.rows_beside([*counted, *self.measured][-MOST_OVERLAID:], self.setting)

    def laid_over(self, tab: str) -> list[dict[str, Any]]:
        """Of `beside` what the chart of a tab shows: what belongs there, or all."""
        return [row for row in self.beside if self.with_others or row[OVERLAID[tab]]]

    @cached_property
    def sweep(self) -> pl.DataFrame:
        """The grids, or modes without tiles, to see the setting among, in its main attention mode."""
        return sweep(self.model, self.setting.neighbours, self.setting.main_mode, **self.setting.options)

    @cached_property
    def timed(self) -> list[dict[str, Any]]:
        """Measured times of the point in its main attention mode."""
        return self.on_record.timed(self.main.config) if self.on_record else []

    @cached_property
    def allocated(self) -> dict[str, tuple[int, str]]:
        """Bytes measured at the point, and where that comes from, by attention mode."""
        found = {one.config.attention.name: self.on_record.allocated(one.config) for one in self.estimates} if self.on_record else {}
        return {name: one for name, one in found.items() if one}


def evaluate(model: ModelSpec, setting: Setting, with_others: bool = False) -> Results:
    """A setting, as `known`, beside all that was measured on this server and all that is on record; `with_others` as of `Results`.

    Raises:
        SpecError: the setting has no result; the error names the field, the value and what is allowed.
    """
    on_record = None if model.learned else OnRecord(RECORDS.snapshot(), model, setting)  # of which nothing is timed here
    results = Results(model, setting.known, STORE.frames(), on_record, with_others)
    results.estimates  # noqa: B018  raises here what would be raised where it is read first
    return results


def overview(results: Results) -> list[Chart]:
    """Tensor FLOPs by module, measured points over them; which part of the model takes what share; what memory holds."""
    return [
        charts.flops_by_module(results.modules, results.laid_over("Overview")),
        charts.shares(results.main, results.main_timing),
        charts.memory(results.estimates, results.hardware, narrow=True, allocated=results.allocated),
    ]


def grids(results: Results) -> list[Chart]:
    """FLOPs of each stage against image tokens, measured points among them."""
    return [charts.flops_by_tokens(results.sweep, results.main.stages, results.laid_over("Sweep"))]


def tiling(results: Results) -> list[Chart]:
    """How the page is cut into tiles."""
    return [charts.tiling_picture(results.setting.workload)]


def roofline(results: Results) -> list[Chart]:
    """Roofline, then seconds by module to the first token and after it (not without times); vector FLOPs, which have a ceiling too."""
    vector = charts.flops_by_module(results.modules, work="vector_flops")
    timing = results.main_timing
    return [charts.roofline(timing, results.timed), *halves(timing, results.timed).values(), vector] if timing else [vector]


def timeline(results: Results) -> list[Chart]:
    """What the host issues and the device runs over time, in each stage; nothing without times."""
    return [*timelines(results.main_timing).values()] if results.main_timing else []


def memory(results: Results) -> list[Chart]:
    """What memory holds, and how it grows with output."""
    setting = results.setting
    points = sweep(results.model, setting.lengths, setting.main_mode, **setting.options)
    return [
        charts.memory(results.estimates, results.hardware, allocated=results.allocated),
        charts.growth(points, results.setting.output_tokens),
    ]


def savings(results: Results) -> list[Chart]:
    """What leaner attention saves at the point, and against tiles where the mode has any."""
    by_mode = results.setting.by_mode(results.model)
    timings = {mode: one.on(**results.conditions) for mode, one in by_mode.items()} if results.device else None
    points = sweep(
        results.model, results.setting.neighbours, list(by_mode), columns=[*MEASURES], stages=["vision"], **results.setting.options
    )
    traced = {mode: spot_checks.find_traced(results.beside, one.config) for mode, one in by_mode.items()}
    return [charts.savings(by_mode, timings, traced), *by_tiles(points, results.setting.workload.tiles).values()]


def plan(results: Results) -> list[Chart]:
    """Pages a day on the device against batch, up to the largest that fits, and output length; nothing where it runs none."""
    timing = results.main_timing
    if timing is None or not (largest := largest_batch(results.main, results.hardware.memory_bytes)):
        return []
    tokens, top = results.setting.output_tokens, min(largest, 1024)
    step, longer = max(1, top // 8), max(64, tokens // 4)
    values = {
        "batch_size": sorted({*(2**power for power in range(11) if 2**power < top), *range(step, top, step), top}),
        "output_tokens": range(longer, 8 * longer + 1, longer) if timing.fits else (),
    }
    return [
        charts.throughput(timing, along, {at: replace(timing, estimate=results.main.with_workload(**{along: at})) for at in chosen})
        for along, chosen in values.items()
        if chosen
    ]


def which_mode(results: Results) -> list[Chart]:
    """Published accuracy of each mode against the pages a day of an engine that serves it, else of the setting's, page by page; nothing
    where the device runs none."""
    if not results.device or why_not(results, "Which mode"):
        return []
    setting, (found, missing), also = results.setting, results.served_modes, []
    if found and next(iter(found.values())).config.engine.name != setting.engine:
        timings = {charts.mode_label(mode): results.in_mode(mode) for mode in (next(iter(found)), [*found][-1])}
        each = (
            f"{label} {si(one.expected_pages_per_day.value) + ' a day' if one.fits else 'does not fit'}" for label, one in timings.items()
        )
        also = [
            f"As set, batch {setting.batch_size} under {results.main.config.model.under(results.main.config.engine)}: {'; '.join(each)}"
        ]
    elif not found:
        also = [f"Not served: {why.removeprefix('attention: ')}" for why in missing]
        found, missing = _in_each_mode(lambda mode: _page_by_page(results, mode))
    also += [f"No result ({why}): {', '.join(labels)}" for why, labels in missing.items()]
    return [charts.accuracy_by_mode(found, results.device.label, read_accuracy(), also)] if found else []


def _page_by_page(results: Results, mode: str) -> charts.ModePages:
    one = results.in_mode(mode, batch_size=1, output_tokens=max(1, results.setting.output_tokens))
    if not one.fits:
        raise SpecError("does not fit")
    return charts.ModePages(one.estimate.config, one.estimate.workload, one.expected_pages_per_day)


def _in_each_mode(pages_of: Callable[[str], charts.ModePages]) -> tuple[dict[str, charts.ModePages], dict[str, list[str]]]:
    """What is found of each mode; and labels of modes without it, by why: the engine, memory, or a prompt beyond the limits."""
    found, missing = {}, {}
    for mode in modes():
        try:
            found[mode.name] = pages_of(mode.name)
        except SpecError as error:
            missing.setdefault(str(error), []).append(charts.mode_label(mode.name))
    return found, missing


def why_not(results: Results, tab: str) -> str | None:
    """Why a tab shows nothing for the setting's model, in a sentence; None where it does."""
    model, setting = results.model, results.setting
    if model.learned is None:
        served = tab != "Which mode" or not results.device or not setting.engine_spec.block_tokens or results.served_modes[0]
        return None if served else f"{setting.engine_spec.label} serves the page in no mode here. {next(iter(results.served_modes[1]))}."
    verify = f"`ocr-flops verify model={model.name}` holds fresh traces of its class against what is shown here."
    return {
        "Which mode": f"Resolution modes are DeepSeek-OCR's. {model.label} makes of a page: {model.page_rule.limits}.",
        "Tiling": f"Only DeepSeek-OCR's tiles are drawn. {model.label} makes of a page: {model.page_rule.limits}.",
        "Spot check": f"Only DeepSeek-OCR is run beside the app. {verify}",
        "Measured": f"Only DeepSeek-OCR is timed here, so there are no records of {model.label}. {verify}",
    }.get(tab)


VIEWS: dict[str, Callable[[Results], list[Chart]]] = {
    "Overview": overview,
    "Tiling": tiling,
    "Sweep": grids,
    "Roofline": roofline,
    "Timeline": timeline,
    "Memory": memory,
    "Savings": savings,
    "Plan": plan,
    "Which mode": which_mode,
}
