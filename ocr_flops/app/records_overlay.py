"""What records say of a setting: rows to lay over its charts, and figures calibrated by what its device was measured to do."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import polars as pl

from ocr_flops.app.setting import HOST_US, OWN_HOST, REACHED, Setting
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.errors import SpecError
from ocr_flops.evidence import verify
from ocr_flops.evidence.calibration import CalibratedEstimate, Calibration, Uncalibrated, calibrate
from ocr_flops.evidence.calibration.conditions import recorded_conditions
from ocr_flops.evidence.calibration.selection import attention_name, experts_name, parse_workloads
from ocr_flops.evidence.records.cache import RECORDS, Snapshot
from ocr_flops.evidence.records.record import is_unedited
from ocr_flops.measure.plan import POINT_FIELDS
from ocr_flops.spec.catalog import load_engine
from ocr_flops.spec.specs import ModelSpec
from ocr_flops.timing.estimate import Estimate
from ocr_flops.units import workload_label

COUNTED = 24  # records whose counts are laid over charts, the latest
VERSIONS = ("torch", "transformers")


@dataclass(frozen=True, eq=False)
class OnRecord:
    """What records say of a setting; everything is computed when it is first read.

    Args:
        snapshot: all records.
        model: the setting's.
        setting: what the controls say.
    """

    snapshot: Snapshot
    model: ModelSpec
    setting: Setting

    @cached_property
    def rows(self) -> pl.DataFrame:
        """A row a stage of every record that ran what the setting shows, on its device, at any workload; see `matching_rows`."""
        setting = self.setting
        same = pl.all_horizontal(pl.col(name) == getattr(setting.workload, name) for name in POINT_FIELDS)
        rows = matching_rows(self.snapshot, self.model, setting.attention_modes, setting.engine, setting.dtype, setting.cache, setting.gpu)
        return rows.with_columns(same.alias("same_workload"))

    @cached_property
    def here(self) -> pl.DataFrame:
        """Of `rows`, those of the setting's own workload: of each attention mode and stage the latest."""
        return self.rows.filter("same_workload").unique(["attention", "stage"], keep="last", maintain_order=True)

    @cached_property
    def modules(self) -> pl.DataFrame:
        """A row a module of the records in `here`."""
        mine = self.here.select("record_id", "stage", "origin")
        return self.snapshot.modules.join(mine, on=["record_id", "stage"], how="inner", maintain_order="left")

    def timed(self, config: RunConfig) -> list[dict[str, Any]]:
        """Rows to lay over times: `stage`, `module` (None: the whole stage), `seconds` (median), `spread_seconds` and `origin`.

        Args:
            config: whose attention they ran.
        """
        both = pl.concat([self.here.with_columns(pl.lit(None, pl.String).alias("module")), self.modules], how="diagonal")
        mine = both.filter(attention=attention_name(config.attention))
        return mine.select("stage", "module", pl.col("median_seconds").alias("seconds"), "spread_seconds", "origin").to_dicts()

    def allocated(self, config: RunConfig) -> tuple[int, str] | None:
        """Most bytes that the device's allocator held in any stage, and where that comes from; None where it was not seen.

        Args:
            config: whose attention they ran.
        """
        mine = self.here.filter((pl.col("attention") == attention_name(config.attention)) & (pl.col("peak_source") == "allocator"))
        mine = mine.sort("peak_allocated_bytes", descending=True)
        return (mine["peak_allocated_bytes"][0], mine["origin"][0]) if mine.height else None

    @cached_property
    def counted(self) -> tuple[pl.DataFrame, ...]:
        """FLOPs counted in the latest records of the setting's engine and batch, on any device, as `spot_checks.build_frame` has them."""
        workload = self.setting.workload
        views = (("global_px", workload.global_px), ("tile_px", workload.tile_px))
        return counted_frames(self.snapshot, self.model.name, self.setting.engine, workload.batch_size, views)

    @cached_property
    def calibration(self) -> Calibration | Uncalibrated:
        """The device's, or why there is none."""
        try:
            device = self.setting.device
        except SpecError as problem:
            return Uncalibrated(str(problem), {})
        return calibrate(self.snapshot.stages, self.model, hardware=device, dtype=self.setting.dtype, engine=self.setting.engine)

    @cached_property
    def conditions(self) -> dict[str, Any]:
        """`Setting.conditions`, with what the device's records say in place of the host and the efficiencies that nobody has set."""
        setting, conditions = self.setting, dict(self.setting.conditions)
        found = recorded_conditions(self.snapshot, self.model, conditions["hardware"], setting.dtype, load_engine(setting.engine))
        if "host" in found and setting.host == OWN_HOST and all(getattr(setting, name) is None for name in HOST_US):
            conditions["host"] = found["host"]
        if "efficiency" in found:
            own = {name.removesuffix("_efficiency") for name in REACHED if getattr(setting, name) is not None}
            conditions["efficiency"] = replace(found["efficiency"], **{name: getattr(setting.efficiency, name) for name in own})
        return conditions

    def calibrated(self, estimate: Estimate) -> CalibratedEstimate | None:
        """An estimate's calibrated figures; None where there is no calibration."""
        return self.calibration.predict(estimate) if isinstance(self.calibration, Calibration) else None


def conditions(model: ModelSpec, setting: Setting) -> dict[str, Any]:
    """What times of a setting hold under, as keywords of `Estimate.on`, with all records there are; raises as `Setting.conditions`."""
    return setting.conditions if model.learned else OnRecord(RECORDS.snapshot(), model, setting).conditions


@lru_cache(maxsize=32)
def counted_frames(
    snapshot: Snapshot, model: str, engine: str, batch_size: int, views: tuple[tuple[str, int], ...]
) -> tuple[pl.DataFrame, ...]:
    """FLOPs counted in the latest records of an engine and a batch: one frame a record, those of the same views last, else oldest first.

    Args:
        snapshot: all records.
        model, engine, batch_size: what was run.
        views: sizes of the views, in px, by the names of their columns.
    """
    kind = (pl.col("state") == "done") & (pl.col("model") == model) & pl.col("torch_flops_counted").is_not_null()
    kind &= (pl.col("engine") == engine) & (pl.col("batch_size") == batch_size)
    stages = snapshot.stages.filter(kind).with_columns(pl.lit(verify.ALL).alias("module"))
    modules = snapshot.modules.filter(kind)
    both = pl.concat([modules, stages.select(modules.columns)])
    rows = both.with_columns(
        pl.col("torch_flops_counted").alias("counted_flops"),
        pl.col("analytic_torch_flops").alias("analytic_flops"),
        (pl.col("torch_flops_counted") - pl.col("analytic_torch_flops")).alias("difference"),
        pl.col("output_tokens").alias("steps"),
        pl.concat_str("attention", pl.lit(", "), "dtype", pl.lit(", "), origin_words().str.strip_prefix("measured ")).alias("ran"),
    )
    same = pl.all_horizontal(pl.col(name) == px for name, px in views)
    latest = rows.sort(same, "measured_at", maintain_order=True)["record_id"].unique(maintain_order=True)[-COUNTED:]
    frames = [rows.filter(pl.col("record_id") == record) for record in latest]
    return tuple(one.with_columns(pl.lit(workload_label(parse_workloads(one[:1]).point(0))).alias("point")) for one in frames)


@lru_cache(maxsize=32)
def matching_rows(
    snapshot: Snapshot, model: ModelSpec, modes: tuple[str, ...], engine: str, dtype: str, cache: str, gpu: str
) -> pl.DataFrame:
    """Stage rows of records that measured a model as a setting has it, at any workload, oldest first.

    They share its engine, experts, precision, cache, logits and device. `origin` is added: where the row comes from, in words.

    Args:
        snapshot: all records.
        model: a record of other dimensions does not match.
        modes: attention modes, any of them.
        engine, dtype, cache, gpu: as in `Setting`.
    """
    spec = load_engine(engine)
    configs = [RunConfig.resolve(model, mode, spec, dtype, cache, None) for mode in modes]
    rows = snapshot.stages.filter(
        pl.col("state") == "done",
        pl.col("median_seconds").is_not_null(),
        (pl.col("model") == model.name) & pl.lit(is_unedited(model)),
        pl.col("hardware") == gpu,
        pl.col("attention").is_in([attention_name(config.attention) for config in configs]),
        pl.col("experts") == experts_name(spec),
        engine=engine,
        dtype=dtype,
        cache=cache,
        prefill_logits=spec.prefill_logits,
    )
    return rows.sort("measured_at").with_columns(origin_words().alias("origin"))


def origin_words() -> pl.Expr:
    """Where a row comes from, in words."""
    whose = pl.when(pl.col("source") == "shipped").then(pl.lit("shipped with the package")).otherwise(pl.lit("recorded here"))
    versions = [part for name in VERSIONS for part in (pl.lit(f", {name} "), pl.col(name).fill_null("?"))]
    when = pl.col("measured_at").str.slice(0, 10)
    return pl.concat_str(pl.lit("measured on "), pl.col("device"), pl.lit(", "), when, *versions, pl.lit("; "), whose)
