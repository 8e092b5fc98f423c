"""What the real model was measured to do, as frames that charts and tables lay beside the analytic numbers."""

import threading
from collections.abc import Iterable
from dataclasses import asdict, astuple
from typing import Any

import polars as pl

from ocr_flops.app.setting import Setting
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.evidence import verify
from ocr_flops.measure.events import Result
from ocr_flops.measure.plan import POINT_FIELDS, TOWERS
from ocr_flops.reports.tables import COMPARED
from ocr_flops.spec.specs import STAGES, ModelSpec
from ocr_flops.spec.workload import Workload, neighbours
from ocr_flops.units import counted, workload_label

SCOPES = ("current point", "all grids of the tile rule")
SETTINGS = {  # what a stage's FLOPs depend on besides the views
    "vision": ("batch_size",),
    "prefill": ("batch_size", "prompt_tokens"),
    "decode": ("batch_size", "prompt_tokens", "output_tokens"),
}
VERSIONS = ("ocr_flops", "torch", "transformers")
VIEWS = ("global_px", "tile_px", "columns", "rows")
Key = tuple[Any, ...]


def select_points(setting: Setting, scope: str) -> list[Workload]:
    """The points a run measures: the current one, or it and what the tile rule cuts (see `neighbours`), each once."""
    here = setting.workload
    if scope == SCOPES[0]:
        return [here]
    around = neighbours(here)
    found = [around.point(number) for number in range(around.points)]
    among = any(all(getattr(one, name) == getattr(here, name) for name in VIEWS) for one in found)
    return found if among else [*found, here]


def result_key(result: Result) -> Key:
    """What makes a result one of a kind: the workload, what ran, where and with which versions. A later result takes its place."""
    ran = result.ran
    settings = (ran["label"], *ran["attention"].items(), ran["prefill_logits"], ran["dtype"], ran["kind"])
    return (*astuple(result.workload), *settings, _device(ran), version_words(ran), *result.stages)


def build_frame(model: ModelSpec, result: Result) -> pl.DataFrame:
    """One result of the worker, compared with the analytic value of what ran.

    Columns: those of `verify.compare_flops`; measured_io_bytes, analytic_io_bytes, measured_peak_bytes and analytic_peak_bytes, null in a
    count without a trace; the workload's; `point` (the workload in words); `ran` (what ran, in words), `engine`, `prefill_logits`, `dtype`,
    `steps` (decode steps that ran); `model`; `kind` ("count" or "trace"); `attention` (one mode, or a mode for each tower); `device` (its
    name), `versions` (in words), `measured_at` (ISO 8601, UTC), `seconds` (that observing the row's stage took, decode: all steps; a
    counted or traced run is slower than a plain one), `python`, `platform`. The last six are null where the worker did not say.
    """
    workload, ran = Workload(**asdict(result.workload)), result.ran
    numbers = {name: getattr(workload, name) for name in (*POINT_FIELDS, "tiles", "image_tokens", "context_tokens")}
    words = {
        "point": workload_label(workload),
        "ran": ran["label"],
        "engine": ran["engine"],
        "prefill_logits": ran["prefill_logits"],
        "dtype": ran["dtype"],
        "model": model.name,
        "kind": ran["kind"],
        "attention": _modes(ran["attention"]),
        "device": _device(ran),
        "versions": version_words(ran),
        "measured_at": ran.get("finished"),
        "python": ran.get("python"),
        "platform": ran.get("platform"),
    }
    seconds = pl.col("stage").replace_strict(ran.get("seconds", {}), default=None, return_dtype=pl.Float64)
    return _compare(model, result).with_columns(
        *(pl.lit(value).alias(name) for name, value in numbers.items()),
        *(pl.lit(value, dtype=pl.String).alias(name) for name, value in words.items()),
        pl.lit(workload.output_tokens).alias("steps"),
        seconds.alias("seconds"),
    )


def _compare(model: ModelSpec, result: Result) -> pl.DataFrame:
    """FLOPs, and of a trace bytes moved and the most alive, of each stage and module, beside their analytic values."""
    flops, traced = verify.compare_flops(model, result), {name: COMPARED[name] for name in ("bytes moved", "peak bytes")}
    if not any("trace" in seen for seen in result.stages.values()):
        return flops.with_columns(pl.lit(None, pl.Int64).alias(name) for pair in traced.values() for name in pair)
    numbers, is_peak = (
        verify.compare_numbers(model, result, ("module", "stage"), ("traffic", "peak")),
        pl.col("column") == "peak_activation_bytes",
    )
    sums = [
        pl.col(side).filter(chosen).sum().alias(name)
        for pair, chosen in zip(traced.values(), (~is_peak, is_peak), strict=True)
        for side, name in zip(("measured", "analytic"), pair, strict=True)
    ]
    return flops.join(numbers.group_by("stage", "module").agg(sums), ["stage", "module"], "left", maintain_order="left")


class Store:
    """What was measured on a server, for all of its pages; a page that is loaded anew finds it again. Any thread may call.

    Args:
        most: results kept; the oldest leaves first.
    """

    def __init__(self, most: int = 500):
        self._most = most
        self._lock = threading.Lock()
        self.changes = 0  # how often something was added
        self._frames: dict[Key, pl.DataFrame] = {}

    def add(self, model: ModelSpec, result: Result) -> pl.DataFrame:
        """Keeps a result of the worker as `build_frame` makes it, in place of an earlier one of the same `result_key`, and returns it.

        Args:
            model: the dimensions that were sent.
            result: what the worker said.
        """
        found, name = build_frame(model, result), (model, *result_key(result))
        with self._lock:
            self._frames.pop(name, None)
            self._frames[name] = found
            self.changes += 1
            while len(self._frames) > self._most:
                del self._frames[next(iter(self._frames))]
        return found

    def frames(self) -> tuple[pl.DataFrame, ...]:
        """One frame a result, oldest first."""
        with self._lock:
            return tuple(self._frames.values())

    def table(self) -> pl.DataFrame:
        """All results as one frame, the latest first; FLOPs and differences are exact integers. Empty without results."""
        frames = self.frames()
        return pl.concat(reversed(frames)) if frames else pl.DataFrame()

    def clear(self) -> None:
        """Forgets everything, for all pages."""
        with self._lock:
            self._frames.clear()


STORE = Store()  # of this server


def version_words(ran: dict[str, Any]) -> str | None:
    """The versions that ran, in words; None where the worker did not say."""
    return ", ".join(f"{name} {ran[name]}" for name in VERSIONS if name in ran) or None


def _device(ran: dict[str, Any]) -> str:
    return ran.get("device_name", ran["device"])


def _modes(attention: dict[str, str]) -> str:
    modes = set(attention.values())
    return modes.pop() if len(modes) == 1 else ", ".join(f"{tower} {attention[tower]}" for tower in TOWERS)


def rows_beside(measured: Iterable[pl.DataFrame], setting: Setting) -> list[dict[str, Any]]:
    """The rows of all results, oldest first, with what they share with the setting, for the stage of the row.

    `on_curve`: ran with the settings shown, at any grid of the mode (or any mode without tiles, as shown).
    `matches`: ran at the views shown, too.
    Decode is left out unless as many steps ran as tokens are shown: sums over different numbers of steps do not belong on one chart.
    """
    here, rows = setting.workload, []
    for result in measured:
        for row in result.iter_rows(named=True):
            stage = row["stage"]
            if stage == "decode" and row["steps"] != setting.output_tokens:
                continue
            logits = stage != "prefill" or row["prefill_logits"] == setting.prefill_logits
            same = logits and row["engine"] == setting.engine and all(row[name] == getattr(here, name) for name in SETTINGS[stage])
            mode = (row["global_px"], row["tile_px"]) == (here.global_px, here.tile_px) if here.tile_px else not row["tiles"]
            views = all(row[name] == getattr(here, name) for name in VIEWS)
            rows.append({**row, "on_curve": same and mode, "matches": same and views})
    return rows


def find_traced(beside: Iterable[dict[str, Any]], config: RunConfig) -> dict[str, dict[str, Any]]:
    """Of `rows_beside` the latest trace of each whole stage at the views shown that ran what a configuration says, by stage."""
    same = {"module": verify.ALL, "matches": True, "attention": _modes(dict(config.attention.kernels)), "dtype": config.dtype}
    rows = [row for row in beside if row.get("measured_peak_bytes") is not None and same.items() <= row.items()]
    return {row["stage"]: row for row in rows if row["stage"] == "vision" or config.cache == "dynamic"}


def count_differences(measured: pl.DataFrame) -> int:
    """How many numbers of results differ from their analytic values."""
    return sum((measured[seen] != measured[ours]).sum() for seen, ours in COMPARED.values())


def verdict(measured: pl.DataFrame) -> str:
    """What the comparisons say, in a sentence."""
    modules = measured.filter(pl.col("module") != verify.ALL)
    wrong, points = count_differences(modules), modules.select("point", "ran").unique().height
    stages = ", ".join([stage for stage in STAGES if stage in set(modules["stage"])])
    numbers = {name: modules[seen].count() for name, (seen, _) in COMPARED.items()}
    kinds = ", ".join(name for name, count in numbers.items() if count)
    what = f"{sum(numbers.values())} numbers of modules ({kinds}; {stages}) at {counted(points, 'point')}"
    return f"All {what} equal the analytic value, as integers." if not wrong else f"{wrong} of {what} differ."
