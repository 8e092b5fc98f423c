"""Published figures of this model, and of relatives with its decoder, beside what is expected of a run under the same conditions.

`points.yaml` has the figures, each with its conditions, its source and how far it is trusted. A figure whose conditions leave something
open (a device, an engine) is held against a stated set of runs: expected is their median, the range spans all of theirs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import polars as pl
import yaml

from ocr_flops.errors import SpecError, one_of
from ocr_flops.evidence.calibration.conditions import with_records
from ocr_flops.spec.catalog import load_hardware
from ocr_flops.spec.host import Ranged
from ocr_flops.spec.reading import read_spec
from ocr_flops.spec.run_spec import RunSpec, load_run
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.timing.estimate import estimate_run
from ocr_flops.timing.serving.result import Serving
from ocr_flops.timing.serving.steady import serving
from ocr_flops.timing.timing import EXPECTED_COLUMNS, Timing
from ocr_flops.units import seconds, si

POINTS = Path(__file__).parent / "points.yaml"
CLOSE, FAR = 1.25, 2.0  # factors that the summary counts by


def _inverse(figure: Ranged) -> Ranged:
    return Ranged(1 / figure.value, 1 / figure.high, 1 / figure.low, figure.source)


def _stage(stage: str) -> Callable[[Timing], Ranged]:
    def seconds(timing: Timing) -> Ranged:
        table = timing.expected_table(((stage, None),))
        return Ranged(*(float(table[name][0, 0]) for name in EXPECTED_COLUMNS[:3]), timing.time_basis)

    return seconds


def _cache(timing: Timing) -> Ranged:
    workload = timing.estimate.workload
    tokens = (workload.context_tokens + workload.output_tokens) * workload.batch_size
    return Ranged.exact(timing.estimate.footprint.kv_cache_bytes / tokens, "counted")


QUANTITIES: dict[str, Callable[[Timing], Ranged]] = {
    "tpot_seconds": lambda timing: timing.expected_tpot,
    "ttft_seconds": lambda timing: timing.expected_ttft,
    "page_seconds": lambda timing: _inverse(timing.expected_pages_per_second),
    "vision_seconds": _stage("vision"),
    "prefill_seconds": _stage("prefill"),
    "weight_bytes": lambda timing: Ranged.exact(timing.estimate.footprint.weight_bytes, "counted"),
    "peak_bytes": lambda timing: Ranged.exact(timing.estimate.footprint.total_bytes, "counted"),
    "cache_bytes_per_token": _cache,
    "image_tokens": lambda timing: Ranged.exact(timing.estimate.workload.image_tokens, "counted"),
}
SERVED: dict[str, Callable[[Serving], Ranged]] = {  # of an engine under a load
    "served_page_seconds": lambda served: _inverse(served.pages_per_second),
    "served_token_seconds": lambda served: _inverse(served.output_tokens_per_second),
    "served_tpot_seconds": lambda served: served.tpot_seconds,
    "served_ttft_seconds": lambda served: served.ttft_seconds,
    "pool_tokens": lambda served: Ranged.exact(served.kv_capacity_tokens, "counted"),
}


@dataclass(frozen=True)
class PublishedFigure:
    """A published figure.

    Args:
        id: a short name.
        figure: what was measured, in words.
        published: its value, or the lowest and the highest, in seconds, bytes or tokens; empty where nothing is compared.
        conditions: under which it was measured, in words.
        source, link: who published it, and where.
        trust: "A" for stated and reproducible conditions, "A-" where little of them is missing, "B" for a party with an interest or a
            condition missing.
        quantity: what of a run of ours it is held against, one of `QUANTITIES`.
        engine, hardware: names of configs; several where the source leaves them open.
        run: the other overrides of that run.
        load: of quantities in `SERVED`: concurrency, and options of the engine, as in "max_num_seqs=100".
        assumed: what the source does not say and the run takes to be so.
        is_open: it is shown and not counted, for the reason that `note` gives.
        note: what else there is to know; why nothing is compared, where there is no quantity.
        kept_apart: found after the figures of hosts and efficiencies were chosen, and not looked at for them.
    """

    id: str
    figure: str
    conditions: str
    source: str
    link: str
    trust: Literal["A", "A-", "B"]
    published: tuple[float, ...] = ()
    quantity: str | None = None
    engine: tuple[str, ...] = ("transformers",)
    hardware: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    load: tuple[str, ...] = ()
    assumed: str = ""
    is_open: bool = False
    note: str = ""
    kept_apart: bool = False

    def __post_init__(self) -> None:
        if self.quantity is None:
            if not self.note:
                raise SpecError(f"{self.id}.note: empty; a figure that is not compared needs the reason")
            return
        one_of(f"{self.id}.quantity", self.quantity, (*QUANTITIES, *SERVED))
        if len(self.published) not in (1, 2) or list(self.published) != sorted(self.published) or self.published[0] <= 0:
            raise SpecError(f"{self.id}.published: {self.published!r} is not a number above 0, or the lowest and the highest")
        if not self.hardware:
            raise SpecError(f"{self.id}.hardware: empty; name the devices that the figure is held against")

    @property
    def status(self) -> str:
        """ "compared", "open" or "not compared"."""
        return "not compared" if self.quantity is None else "open" if self.is_open else "compared"

    def expect(self, overrides: Iterable[str] = ()) -> Ranged:
        """The quantity over the point's runs, with further overrides: the median of the values, and the range of all."""
        found = []
        for engine in self.engine:
            run = with_records(load_run([f"engine={engine}", *self.run, *overrides, "hardware=null"]))  # no device's own records
            if self.quantity in SERVED:
                found += [SERVED[self.quantity](self._serve(run, load_hardware(name))) for name in self.hardware]
                continue
            cost = estimate_run(run)
            for name in self.hardware:
                found.append(QUANTITIES[self.quantity](cost.on(load_hardware(name), host=run.host, efficiency=run.efficiency)))
        values, lows, highs = zip(*(one[:3] for one in found), strict=True)
        return Ranged(median(values), min(lows), max(highs), found[0].source)

    def _serve(self, run: RunSpec, hardware: HardwareSpec) -> Serving:
        """The run's workload served on a device under the point's load."""
        load = {name: yaml.safe_load(value) for name, value in (one.split("=", 1) for one in self.load)}
        hardware = replace(hardware, memory_bytes=load.pop("memory_bytes", hardware.memory_bytes))
        flying = load.pop("concurrency", None)
        given = {name: getattr(run, name) for name in ("attention", "dtype", "host", "efficiency")}
        return serving(run.model, run.workload, hardware, engine=run.engine, concurrency=flying, options=load, **given)


@cache
def load_points() -> tuple[PublishedFigure, ...]:
    """All published figures that the package has, in the order of the file."""
    config = yaml.safe_load(POINTS.read_text(encoding="utf-8"))
    return tuple(read_spec(PublishedFigure, "points", one) for one in config["points"])


def rows_beside(timing: Timing) -> list[dict[str, Any]]:
    """Published times per token of an estimate's device, engine and host, for a batch of 1, laid over its decode as a measured time is.

    Figures that are open, or of which the source does not name the one device, are left out.

    Returns:
        rows with stage, module (None), seconds (of as many tokens as the estimate's), spread_seconds (None) and origin.
    """
    estimate, rows = timing.estimate, []
    engine = estimate.config.engine
    if estimate.workload.batch_size != 1 or not estimate.workload.output_tokens or "decode" not in estimate.chosen_stages:
        return rows
    for point in load_points():
        known = (point.status, point.quantity, point.hardware) == ("compared", "tpot_seconds", (timing.hardware.name,))
        run = dict(one.split("=", 1) for one in point.run)
        its_host = run.get("host", engine.host) == timing.host.name and not any(name.startswith("host.") for name in run)
        if known and engine.name in point.engine and its_host:
            token = sum(point.published) / len(point.published)
            origin = f"published, {seconds(token)} a token: {point.conditions} ({point.source})"
            spent = {"seconds": token * estimate.workload.output_tokens, "spread_seconds": None}
            rows.append({"stage": "decode", "module": None, **spent, "origin": origin})
    return rows


def compare_points(overrides: Sequence[str] = ()) -> pl.DataFrame:
    """A row a figure: what was published, what is expected, their ratio (1 inside a published range) and whether the ranges meet.

    Args:
        overrides: of every run, beside the point's own; they win.
    """
    rows = []
    for point in load_points():
        row: dict[str, Any] = {"id": point.id, "figure": point.figure, "status": point.status, "quantity": point.quantity}
        if point.quantity is not None:
            least, most = point.published[0], point.published[-1]
            expected = point.expect(overrides)
            row |= {"published_low": least, "published_high": most, "expected": expected.value, "expected_low": expected.low}
            row |= {"expected_high": expected.high, "ratio": expected.value / float(np.clip(expected.value, least, most))}
            row["in_range"] = expected.low <= most and expected.high >= least if point.quantity.endswith("_seconds") else None
            row["basis"] = expected.source
            row["runs"] = f"engine={'|'.join(point.engine)} hardware={'|'.join(point.hardware)} {' '.join((*point.run, *point.load))}"
        words = ("trust", "kept_apart", "conditions", "assumed", "note", "source", "link")
        rows.append(row | {name: getattr(point, name) for name in words})
    return pl.DataFrame(rows, infer_schema_length=None)


def summarise_points(frame: pl.DataFrame) -> dict[str, int]:
    """How many times are compared, close (within 25 %), within a factor of 2, in range, kept apart, or have figures of the host set in
    their own run; how many figures are of memory, open, left out.

    Args:
        frame: of `compare_points`.
    """
    compared = frame.filter(pl.col("status") == "compared")
    times = compared.filter(pl.col("quantity").str.ends_with("_seconds"))
    factor = pl.max_horizontal("ratio", 1 / pl.col("ratio"))
    return {
        "compared": times.height,
        "within_25_percent": times.filter(factor <= CLOSE).height,
        "within_factor_2": times.filter(factor <= FAR).height,
        "in_range": int(times["in_range"].sum()),
        "kept_apart": int(times["kept_apart"].sum()),
        "own_host": int(times["runs"].str.contains(r" host\.\w+=").sum()),
        "memory_and_tokens": compared.height - times.height,
        "open": frame.filter(pl.col("status") == "open").height,
        "not_compared": frame.filter(pl.col("status") == "not compared").height,
    }


def shown_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """The figures that are held against something, in words and with units; argument as in `summarise_points`."""

    def words(quantity: str, *values: float) -> str:
        with_unit = seconds if quantity.endswith("_seconds") else lambda value: si(value, "" if quantity.endswith("tokens") else "B", 4)
        return " to ".join(dict.fromkeys(with_unit(value) for value in values))

    return pl.DataFrame(
        {
            "id": row["id"],
            "quantity": row["quantity"].removesuffix("_seconds").replace("_", " "),
            "published": words(row["quantity"], row["published_low"], row["published_high"]),
            "expected": words(row["quantity"], row["expected"]),
            "range": words(row["quantity"], row["expected_low"], row["expected_high"]),
            "ratio": f"{row['ratio']:.2f}",
            "in range": {True: "yes", False: "no", None: "–"}[row["in_range"]],
            "status": "kept apart" if row["kept_apart"] else row["status"],
            "runs": row["runs"],
        }
        for row in frame.drop_nulls("quantity").iter_rows(named=True)
    )
