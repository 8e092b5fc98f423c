"""An estimate on a device: seconds per stage and module, time to first token, time per output token, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ocr_flops.cost.estimate import Cost, Framed, TablePart
from ocr_flops.cost.polynomial import evaluate
from ocr_flops.cost.stage_groups import COLUMNS, Key, StageGroup
from ocr_flops.spec.host import EfficiencySpec, HostSpec, Ranged, describe_basis
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.spec.workload import Column
from ocr_flops.timing.expected import expected_seconds, module_seconds
from ocr_flops.timing.lanes import Seconds
from ocr_flops.timing.roofline import CEILINGS, TIME_COLUMNS, operator_seconds, time_columns
from ocr_flops.units import SECONDS_PER_DAY

if TYPE_CHECKING:
    import polars as pl

EXPECTED_COLUMNS = ("expected_seconds", "expected_low_seconds", "expected_high_seconds", "device_busy_share")
EXPECTED_FIGURES = tuple(
    f"expected_{figure}{part}{unit}"
    for figure, unit in (("ttft", "_seconds"), ("tpot", "_seconds"), ("pages_per_second", ""))
    for part in ("", "_low", "_high")
)
OPERATOR_COSTS = ("tensor_flops", "vector_flops", "io_bytes", "operators")


@dataclass(frozen=True, eq=False)
class Timing(Framed):
    """An estimate's cost as time on a device, computed when it is first read.

    Args:
        host: what issues the operators.
        efficiency: what kernels reach of the device's peaks.
        launch_seconds: added to roofline seconds for every operator executed; expected seconds have the host's own figure.
    """

    estimate: Cost
    hardware: HardwareSpec
    host: HostSpec
    efficiency: EfficiencySpec
    launch_seconds: float = 0.0

    def __repr__(self) -> str:
        return f"Timing({self.estimate!r} on {self.hardware.label}, host {self.host.name}, efficiency {self.efficiency.name})"

    def _parts(self, level: str) -> tuple[TablePart, TablePart]:
        """The columns of `TIME_COLUMNS`, and those of `EXPECTED_COLUMNS`, of stages or modules.

        Expected seconds of a module are its part of the critical path, without range or share (NaN); `expected_host_seconds` what of that
        part the host takes to issue operators.
        """

        def times(group: StageGroup, modules: Sequence[str | None]) -> dict[str, np.ndarray]:
            return time_columns(group, self.estimate.config, self.hardware, self.launch_seconds, modules)

        def expected(group: StageGroup, modules: Sequence[str | None]) -> dict[str, Sequence[Column]]:
            lanes = group, self.estimate.config, self.hardware, self.host, self.efficiency
            if level == "stage":
                seconds, device = expected_seconds(*lanes)
                share = np.divide(device[0], seconds[0], out=np.zeros_like(device[0]), where=seconds[0] > 0)
                return {name: [values] for name, values in zip(EXPECTED_COLUMNS, (*seconds, share), strict=True)}
            host, device = module_seconds(*lanes)[:, [group.program.modules.index(module) for module in modules]]
            found = dict.fromkeys(EXPECTED_COLUMNS, [np.nan] * len(modules))
            return found | {"expected_seconds": host + device, "expected_host_seconds": host}

        names = (*EXPECTED_COLUMNS, *["expected_host_seconds"] * (level == "module"))
        return TablePart(TIME_COLUMNS, times), TablePart(dict.fromkeys(names, float), expected)

    def expected_table(self, keys: tuple[Key, ...]) -> dict[str, np.ndarray]:
        """The columns of `EXPECTED_COLUMNS` at [point, key], of stages, or of modules also `expected_host_seconds`."""
        return self.estimate.fill(keys, self._parts("module" if keys[0][1] else "stage")[1])[0]

    @cached_property
    def _stages(self) -> dict[str, np.ndarray]:
        return self.estimate.fill(self.estimate.keys("stage"), self._parts("stage")[0])[0]

    @cached_property
    def _expected(self) -> dict[str, np.ndarray]:
        return self.expected_table(self.estimate.keys("stage"))

    def at(self, number: int) -> Timing:
        """One of the points alone, whose expected seconds are those found of all of them."""
        found = replace(self, estimate=replace(self.estimate, workload=self.estimate.workload.point(number)))
        found.__dict__["_expected"] = {name: column[number : number + 1] for name, column in self._expected.items()}
        return found

    def lane_seconds(self, stage: str, lane: str) -> np.ndarray:
        """Expected seconds of a stage at every point: all of them ("expected"), or those in which the device runs kernels ("device")."""
        place = self.estimate.keys("stage").index((stage, None))
        seconds, busy = (self._expected[name][:, place] for name in ("expected_seconds", "device_busy_share"))
        return seconds * busy if lane == "device" else seconds

    def _expect(self, *stages: str) -> Ranged | None:
        """Expected seconds of several stages together, with their range; None where one of them was not estimated."""
        found = [self._seconds(*stages, column=column) for column in EXPECTED_COLUMNS[:3]]
        return None if found[0] is None else Ranged(*found, self.time_basis)

    @cached_property
    def time_basis(self) -> str:
        """What expected seconds rest on."""
        return describe_basis(self.host, self.efficiency, self.estimate.config.engine)

    @property
    def short_basis(self) -> str:
        """`time_basis` without its figures."""
        return "; ".join(part.partition(":")[0] for part in self.time_basis.split("; "))

    @property
    def expected_ttft(self) -> Ranged | None:
        """Expected time to first token, vision and prefill, with its range in seconds. None where the estimate has not both."""
        return self._expect("vision", "prefill")

    @property
    def expected_tpot(self) -> Ranged | None:
        """Expected mean time per output token of one sequence; None without output tokens (NaN in columns) or decode."""
        decode, tokens = self._expect("decode"), self.estimate.workload.output_tokens
        if decode is None or (self.estimate.workload.is_single and not tokens):
            return None
        return Ranged(*(_ratio(seconds, tokens) for seconds in decode[:3]), decode.source)

    @property
    def expected_pages_per_second(self) -> Ranged | None:
        """Expected pages of the whole batch per second, from pixels to the last token; None where the estimate has not all stages."""
        whole = self._expect("vision", "prefill", "decode")
        if whole is None:
            return None
        workload = self.estimate.workload
        pages = [_ratio(workload.batch_size * workload.pages, seconds) for seconds in (whole.value, whole.high, whole.low)]
        return Ranged(*pages, whole.source)

    @property
    def expected_pages_per_day(self) -> Ranged | None:
        """`expected_pages_per_second` in a day."""
        pages = self.expected_pages_per_second
        return pages and SECONDS_PER_DAY * pages

    def expected_figures(self) -> dict[str, Seconds | None]:
        """The expected times and pages per second with their ranges, by the names of `EXPECTED_FIGURES`; None where there is none."""
        found = (self.expected_ttft, self.expected_tpot, self.expected_pages_per_second)
        return dict(zip(EXPECTED_FIGURES, (one for figure in found for one in (figure or (None,) * 3)[:3]), strict=True))

    @property
    def device_busy_share(self) -> Seconds | None:
        """The part of the expected time of all stages in which the device runs kernels; 0 where nothing runs."""
        seconds, busy = self._expected["expected_seconds"], self._expected["device_busy_share"]
        share = (seconds * busy).sum(axis=1) / np.maximum(seconds.sum(axis=1), np.finfo(float).tiny)
        return float(share[0]) if self.estimate.workload.is_single else share

    def _seconds(self, *stages: str, column: str = "roofline_seconds") -> Seconds | None:
        """Seconds of several stages together; None where one of them was not estimated."""
        if not set(stages) <= set(self.estimate.chosen_stages):
            return None
        wanted = [i for i, (stage, _) in enumerate(self.estimate.keys("stage")) if stage in stages]
        seconds = (self._expected if column in EXPECTED_COLUMNS else self._stages)[column][:, wanted].sum(axis=1)
        return float(seconds[0]) if self.estimate.workload.is_single else seconds

    @property
    def ttft_seconds(self) -> Seconds | None:
        """Time to first token: vision and prefill. None where the estimate has not both."""
        return self._seconds("vision", "prefill")

    @property
    def decode_seconds(self) -> Seconds | None:
        """All output tokens; None where the estimate has no decode."""
        return self._seconds("decode")

    @property
    def tpot_seconds(self) -> Seconds | None:
        """Mean time per output token of one sequence; None without output tokens (NaN in columns) or decode."""
        return _ratio(self.decode_seconds, self.estimate.workload.output_tokens)

    @property
    def last_tpot_seconds(self) -> Seconds | None:
        """Time of the last output token, which attends to the longest context."""
        tokens = self.estimate.workload.output_tokens
        if np.all(tokens == 0) or self.decode_seconds is None:
            return None
        shorter = self.estimate.with_workload(output_tokens=np.maximum(tokens - 1, 0) if isinstance(tokens, np.ndarray) else tokens - 1)
        return self.decode_seconds - replace(self, estimate=shorter).decode_seconds

    @property
    def tokens_per_second(self) -> Seconds | None:
        """Output tokens of the whole batch per second of decode."""
        return _ratio(self.estimate.workload.output_tokens * self.estimate.workload.batch_size, self.decode_seconds)

    @property
    def pages_per_second(self) -> Seconds | None:
        """Pages of the whole batch per second from pixels to the last token; None where the estimate has not all stages."""
        workload = self.estimate.workload
        return _ratio(workload.batch_size * workload.pages, self._seconds("vision", "prefill", "decode"))

    @property
    def bound_ttft_seconds(self) -> Seconds | None:
        """What no implementation undercuts for the time to first token."""
        return self._seconds("vision", "prefill", column="bound_seconds")

    @property
    def binding_ceilings(self) -> dict[str, str]:
        """For one point: the ceiling with most time in every stage."""
        return {stage: CEILINGS[index] for (stage, _), index in zip(self.estimate.keys("stage"), self._stages["ceiling"][0], strict=True)}

    @property
    def binding_ceiling(self) -> str:
        """For one point: the ceiling with most time in the stage with most time."""
        return CEILINGS[self._stages["ceiling"][0, self._stages["roofline_seconds"][0].argmax()]]

    @property
    def fits(self) -> bool | np.ndarray:
        """Whether weights, cache and activations fit the device's memory."""
        return self.estimate.footprint.total_bytes <= self.hardware.memory_bytes

    @cached_property
    def operators(self) -> pl.DataFrame:
        """For one point: a row per stage, module and operator name, with its work, traffic, intensity and roofline seconds.

        Decode's operators are taken at the mean context and multiplied by the steps.
        """
        import polars as pl

        rows = []
        for group in self.estimate.stage_groups():
            ceilings = operator_seconds(group.program, self.hardware, self.estimate.config.dtype) @ group.monomial_values()[:, 0]
            for operation, seconds in zip(group.program.operations, ceilings, strict=True):
                costs = {cost: evaluate(operation.costs[cost], group.summed) for cost in OPERATOR_COSTS}
                spent = float(seconds.max()) + costs["operators"] * self.launch_seconds
                row = {"stage": group.stage, "module": operation.module, "operator": operation.name, **costs}
                rows.append(row | {"roofline_seconds": spent, "binding_ceiling": CEILINGS[seconds.argmax()]})
        total = pl.col("tensor_flops") + pl.col("vector_flops")
        grouped = pl.DataFrame(rows).group_by("stage", "module", "operator", "binding_ceiling", maintain_order=True).agg(pl.all().sum())
        return grouped.filter(pl.col("operators") > 0).with_columns(
            total_flops=total,
            arithmetic_intensity=pl.when(pl.col("io_bytes") > 0).then(total / pl.col("io_bytes")),
            share=pl.col("roofline_seconds") / pl.col("roofline_seconds").sum(),
        )

    def frame(self, level: str = "stage", columns: Sequence[str] = COLUMNS) -> pl.DataFrame:
        """The estimate's frame of a level with the device's name and time columns.

        Columns added: hardware, host, roofline_seconds, bound_seconds, binding_ceiling, ceiling_margin (the binding ceiling's time over
        the next one's; null where there is no other), expected_seconds; of stages its range and device_busy_share, of modules
        expected_host_seconds.
        """
        import polars as pl

        from ocr_flops.cost.frames import build_frame

        keys = self.estimate.keys(level)
        if self.estimate.workload.is_single:
            costs = self.estimate.frame(level, columns)
            times, expected = (self._stages, self._expected) if level == "stage" else self.estimate.fill(keys, *self._parts(level))
        else:
            table, times, expected = self.estimate.fill(keys, self.estimate.costs_part(columns), *self._parts(level))
            costs = build_frame(self.estimate.config, self.estimate.workload, keys, table)
        margin = pl.Series("ceiling_margin", times["ceiling_margin"].reshape(-1))
        return costs.with_columns(
            pl.lit(self.hardware.title, pl.Categorical).alias("hardware"),
            pl.lit(self.host.name, pl.Categorical).alias("host"),
            *(pl.Series(name, times[name].reshape(-1)) for name in ("roofline_seconds", "bound_seconds")),
            pl.Series("binding_ceiling", CEILINGS, pl.Categorical).gather(times["ceiling"].reshape(-1)),
            margin.set(~margin.is_finite(), None),
            *(pl.Series(name, values.reshape(-1), nan_to_null=True) for name, values in expected.items()),
        )


def _ratio(top: Column | Seconds | None, bottom: Column | Seconds | None) -> Seconds | None:
    """top / bottom; None, or NaN in columns, where either is missing or bottom is 0."""
    if top is None or bottom is None:
        return None
    if not isinstance(top, np.ndarray) and not isinstance(bottom, np.ndarray):
        return top / bottom if bottom else None
    return np.divide(top, bottom, out=np.full(np.broadcast(top, bottom).shape, np.nan), where=np.asarray(bottom) != 0)
