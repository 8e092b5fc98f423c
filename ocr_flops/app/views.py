"""What is drawn for a setting: the charts of each view, for every page that shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ocr_flops import charts
from ocr_flops.app import spot_checks
from ocr_flops.app.setting import Setting
from ocr_flops.charts import Chart
from ocr_flops.charts.savings_by_tiles import by_tiles
from ocr_flops.charts.times import halves
from ocr_flops.errors import SpecError
from ocr_flops.spec.specs import HardwareSpec, ModelSpec
from ocr_flops.timing.estimate import Estimate, sweep
from ocr_flops.timing.timing import Timing

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.app.records_overlay import OnRecord

OVERLAID = 24  # results that charts show, the latest: as many as a run over all vendor grids brings, and one more


@dataclass(frozen=True, eq=False)
class Shown:
    """A setting and what has been measured; numbers are computed when they are first read.

    Args:
        model: from `load_model`.
        setting: what the controls say.
        measured: frames of `spot_check.frame`, oldest first.
        on_record: what records say of the setting; None without any.

    Raises:
        SpecError: when `estimates` is read first, naming the field, the value and what is allowed.
    """

    model: ModelSpec
    setting: Setting
    measured: Sequence[pl.DataFrame] = ()
    on_record: OnRecord | None = None

    @cached_property
    def estimates(self) -> list[Estimate]:
        """The point in every attention mode shown."""
        return self.setting.estimates(self.model)

    @cached_property
    def without_times(self) -> str | None:
        """Why there are no times on the device; None where there are."""
        try:
            self.setting.device  # noqa: B018
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
        return [one.on(self.device) for one in self.estimates] if self.device else []

    @cached_property
    def modules(self) -> pl.DataFrame:
        """The module frames of all attention modes shown."""
        import polars as pl

        return pl.concat([one.modules for one in self.estimates])

    @cached_property
    def beside(self) -> list[dict[str, Any]]:
        """Rows of the latest results, told apart by what they share with the setting."""
        return spot_checks.beside(self.measured[-OVERLAID:], self.setting)

    @cached_property
    def sweep(self) -> pl.DataFrame:
        """The grids, or modes without tiles, to see the setting among, in its first attention mode."""
        return sweep(self.model, self.setting.neighbours, self.setting.attention_modes[0], **self._options)

    @cached_property
    def timed(self) -> list[dict[str, Any]]:
        """Measured times of the point in its first attention mode."""
        return self.on_record.timed(self.estimates[0].config) if self.on_record else []

    @cached_property
    def allocated(self) -> dict[str, tuple[int, str]]:
        """Bytes measured at the point, and where that comes from, by attention mode."""
        found = {one.config.attention.name: self.on_record.allocated(one.config) for one in self.estimates} if self.on_record else {}
        return {name: one for name, one in found.items() if one}

    @property
    def _options(self) -> dict[str, str]:
        return {name: getattr(self.setting, name) for name in ("engine", "dtype", "cache")}


def overview(shown: Shown) -> list[Chart]:
    """Tensor FLOPs by module, measured points over them; which part of the model takes what share; what memory holds."""
    timing = shown.timings[0] if shown.timings else None
    return [
        charts.flops_by_module(shown.modules, shown.beside),
        charts.shares(shown.estimates[0], timing),
        charts.memory(shown.estimates, shown.hardware, narrow=True, allocated=shown.allocated),
    ]


def grids(shown: Shown) -> list[Chart]:
    """FLOPs of each stage against image tokens, measured points among them."""
    return [charts.flops_by_tokens(shown.sweep, shown.estimates[0].stages, shown.beside)]


def tiling(shown: Shown) -> list[Chart]:
    """How the page is cut into tiles."""
    return [charts.tiling_picture(shown.setting.workload)]


def roofline(shown: Shown) -> list[Chart]:
    """Roofline, then seconds by module to the first token and after it (not without times); vector FLOPs, which have a ceiling too."""
    vector = charts.flops_by_module(shown.modules, work="vector_flops")
    if not shown.timings:
        return [vector]
    return [charts.roofline(shown.timings[0], shown.timed), *halves(shown.timings[0], shown.timed).values(), vector]


def memory(shown: Shown) -> list[Chart]:
    """What memory holds, and how it grows with output."""
    points = sweep(shown.model, shown.setting.lengths, shown.setting.attention_modes[0], **shown._options)
    return [charts.memory(shown.estimates, shown.hardware, allocated=shown.allocated), charts.growth(points, shown.setting.output_tokens)]


def savings(shown: Shown) -> list[Chart]:
    """What leaner attention saves at the point, and against tiles where the mode has any."""
    by_mode = shown.setting.by_mode(shown.model)
    timings = {mode: one.on(shown.device) for mode, one in by_mode.items()} if shown.device else None
    points = sweep(shown.model, shown.setting.neighbours, list(by_mode), **shown._options)
    return [charts.savings(by_mode, timings), *by_tiles(points, shown.setting.workload.tiles).values()]


VIEWS: dict[str, Callable[[Shown], list[Chart]]] = {
    "Overview": overview,
    "Tiling": tiling,
    "Sweep": grids,
    "Roofline": roofline,
    "Memory": memory,
    "Savings": savings,
}
