"""What a corpus takes: tokens, FLOPs, and on every device pages a second, GPU-hours, days, money and energy, with their ranges."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from math import ceil
from typing import Any, Self

import polars as pl

from ocr_flops.errors import SpecError
from ocr_flops.evidence.calibration.conditions import with_records
from ocr_flops.spec.catalog import (
    load_attention,
    load_engine,
    modes,
    names,
)
from ocr_flops.spec.host import Ranged
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import PAGED, HardwareSpec, Mode
from ocr_flops.spec.workload import Workload
from ocr_flops.studies.corpus.batches import Batches, Spent
from ocr_flops.studies.corpus.flights import is_server, request_pages, seconds_of_mix, serve_mix, time_served
from ocr_flops.studies.corpus.groups import Groups
from ocr_flops.studies.corpus.kinds import TOTALS, Kind, list_kinds, total_costs
from ocr_flops.studies.corpus.lengths import DEFAULT_LIMIT, Lengths
from ocr_flops.timing.serving.result import CUTTING, Serving
from ocr_flops.timing.serving.steady import Server
from ocr_flops.units import ENDS, SECONDS_PER_HOUR

WATTS_PER_KW = 1000
ATTENTIONS = ("eager", "sdpa", "flash")


_ENDS = (("", 0, 0), ("_low", 1, 2), ("_high", 2, 1))  # a case, its place, and the place of the opposite one
_RANGED = [f"{name}{case}" for name in ("pages_per_second", "gpu_hours", "hours", "cost", "energy_kwh") for case in ENDS]
_COUNTS = dict.fromkeys(("batch_size", "concurrency"), pl.Int64)
_PLAN_SCHEMA = {"hardware": pl.String, "label": pl.String, **_COUNTS, **dict.fromkeys(_RANGED, pl.Float64)}
_PLAN_SCHEMA |= {"limited_by": pl.String, "time_basis": pl.String, "reason": pl.String}
_HOURS = dict.fromkeys([f"gpu_hours{case}" for case in ENDS], pl.Float64)
_PARTS_SCHEMA = {"hardware": pl.String, "mode": pl.String, "columns": pl.Int64, "rows": pl.Int64, "pages": pl.Int64, "batch_size": pl.Int64}
_PARTS_SCHEMA |= _HOURS
_ALTERNATIVES_SCHEMA = {"choice": pl.String, "name": pl.String, **_HOURS, "saving": pl.Float64, "is_plan": pl.Boolean}


@dataclass(frozen=True, eq=False)
class Plan:
    """What a corpus takes.

    Args:
        run: what runs, without a device.
        corpus: the pages as groups.
        devices: those asked for.
        prices: of a device hour, by its name.
        currency: of the prices.
        gpus: devices side by side.
        mode: the resolution mode of pages without one of their own.
        lengths: of outputs; None where the table says.
        override: every page runs in the mode, whatever its own.
        loops, limit: the share of pages that repeat themselves until so many output tokens.
        batch_size: of every batch; None for the fastest that fits.
        preprocess_workers: threads that cut pages for an engine that serves; None for its own.
    """

    run: RunSpec
    corpus: Groups
    devices: tuple[HardwareSpec, ...]
    prices: Mapping[str, float]
    currency: str
    gpus: int
    mode: Mode
    lengths: Lengths | None
    override: bool = False
    loops: float = 0.0
    limit: int = DEFAULT_LIMIT
    batch_size: int | None = None
    preprocess_workers: int | None = None

    def __repr__(self) -> str:
        names = ", ".join(device.name for device in self.devices)
        best = self.best
        first = "none runs it" if best is None else f"{'fastest' if best['cost'] is None else 'cheapest'} {best['hardware']}"
        return f"Plan({self.run.model.label}, {self.run.engine.name}, {self.pages:,} pages on {names}; {first})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.plans._repr_html_()}"

    @property
    def pages(self) -> int:
        """How many pages are planned for."""
        return self.corpus.pages

    @property
    def refused(self) -> dict[str, int]:
        """Pages left out, by the reason."""
        return self.corpus.refused

    @cached_property
    def kinds(self) -> list[Kind]:
        """The pages by resolution mode and grid."""
        laws = self.run.workload.prompt_tokens, self.override, self.loops, self.limit
        return list_kinds(self.corpus, self.mode, self.lengths, *laws, self.run.model.page_rule)

    @cached_property
    def groups(self) -> pl.DataFrame:
        """A row per resolution mode and grid.

        Columns: mode, columns, rows, tiles, pages, pages_share, image_tokens (a page's), prompt_tokens and output_tokens (means),
        total_tokens (of all pages: image, prompt and output), tensor_flops, total_flops (of all pages, each by itself), flops_share.
        """
        rows = []
        for kind, costs in zip(self.kinds, total_costs(self.counted_run, self.kinds), strict=True):
            tokens = kind.pages * kind.image_tokens + kind.moments.prompt + kind.moments.output
            rows.append(
                {
                    "mode": kind.mode.name,
                    "columns": kind.columns,
                    "rows": kind.rows,
                    "tiles": kind.columns * kind.rows * (kind.columns * kind.rows > 1),
                    "pages": kind.pages,
                    "pages_share": kind.pages / self.pages,
                    "image_tokens": kind.image_tokens,
                    "prompt_tokens": kind.moments.prompt / kind.pages,
                    "output_tokens": kind.moments.output / kind.pages,
                    "total_tokens": tokens,
                    **costs,
                }
            )
        wide = dict.fromkeys(("total_tokens", *TOTALS), pl.Decimal(38, 0))  # beyond 64 bits; Parquet and CSV have them whole
        frame = pl.DataFrame(rows, schema_overrides=wide)
        flops = pl.col("total_flops").cast(pl.Float64)
        return frame.with_columns(flops_share=flops / flops.sum())

    @cached_property
    def totals(self) -> dict[str, int]:
        """Tokens and FLOPs of all pages: image_tokens, prompt_tokens, output_tokens, total_tokens and the costs of `groups`."""
        found = {"pages": self.pages, "image_tokens": sum(kind.pages * kind.image_tokens for kind in self.kinds)}
        found |= {f"{name}_tokens": sum(getattr(kind.moments, name) for kind in self.kinds) for name in ("prompt", "output")}
        return found | {name: int(self.groups[name].sum()) for name in ("total_tokens", *TOTALS)}

    @property
    def counted_run(self) -> RunSpec:
        """The run whose FLOPs are counted: of an engine that serves, transformers', which pads no page that is alone."""
        return replace(self.run, engine=load_engine(), cache="dynamic") if is_server(self.run.engine) else self.run

    @property
    def seconds_per_page(self) -> list[float]:
        """Expected seconds of a page of every kind on the best device; empty where none runs it."""
        if self.best is None:
            return []
        spent = self._timed[self.best["hardware"]][0]
        return [one.seconds.value / kind.pages for one, kind in zip(spent, self.kinds, strict=True)]

    @property
    def is_cut(self) -> bool:
        """Whether a device that serves waits for threads that cut pages, which takes a part of what `plans` does to know."""
        return any(not isinstance(one, SpecError) and one[1].limited_by == CUTTING for one in self._mixes.values())

    @cached_property
    def _requests(self) -> list[Workload]:
        return request_pages(self.kinds)

    @cached_property
    def _batches(self) -> Batches:
        return Batches(self.run, self.kinds, self.batch_size)

    def _on(self, device: HardwareSpec) -> RunSpec:
        return with_records(replace(self.run, hardware=device))

    @cached_property
    def _mixes(self) -> dict[str, tuple[Server, Serving] | SpecError]:
        """Of an engine that serves: what serves all kinds together on every device, and its steady state."""
        served = self.devices if is_server(self.run.engine) else ()
        return _try_each(served, lambda device: serve_mix(self._on(device), self.kinds, self._requests, self.preprocess_workers))

    @cached_property
    def _timed(self) -> dict[str, tuple[list[Spent], str] | SpecError]:
        if not is_server(self.run.engine):
            return _try_each(self.devices, lambda device: self._batches.on(self._on(device)))
        return _try_each(self.devices, lambda device: time_served(*_known(self._mixes[device.name]), self.kinds))

    @cached_property
    def plans(self) -> pl.DataFrame:
        """A row per device, the cheapest first where there are prices, else the fastest.

        Columns: hardware, label, batch_size (of the kind with most pages) or, of an engine that serves, concurrency (pages in flight),
        pages_per_second (of one device), gpu_hours, hours (with the GPUs given; at least what one of them must do: whole
        batches, or a request), cost (with a price), energy_kwh (at the board's full
        power, where that is known), from pages_per_second on each also as ..._low and ..._high; limited_by (of an engine that serves: what
        more pages a second would need more of); time_basis; reason (why a device does not run it).
        """
        return pl.DataFrame(self.rows, schema=_PLAN_SCHEMA)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `plans`."""
        return self._sorted(self._row)

    @property
    def sums(self) -> list[dict[str, Any]]:
        """The rows of `plans` without hours, which, of an engine that serves, take a time of every kind by itself."""
        return self._sorted(self._sum)

    def _sorted(self, find: Callable[[HardwareSpec], dict[str, Any]]) -> list[dict[str, Any]]:
        by = ["cost", "gpu_hours"] if self.prices else ["gpu_hours"]
        rows = [dict.fromkeys(_PLAN_SCHEMA) | find(device) for device in self.devices]
        return sorted(rows, key=lambda row: [(row[name] is None, row[name] or 0.0) for name in by])

    def _sum(self, device: HardwareSpec) -> dict[str, Any]:
        """What all pages take of a device, or why it does not run them."""
        row = {"hardware": device.name, "label": device.label}
        try:
            if self._mixes:
                _, mix = _known(self._mixes[device.name])
                row |= {"concurrency": mix.concurrency, "limited_by": str(mix.limited_by), "time_basis": mix.time_basis}
                seconds = seconds_of_mix(mix, self.kinds)
            else:
                spent, basis = _known(self._timed[device.name])
                most = max(range(len(self.kinds)), key=lambda number: self.kinds[number].pages)
                row |= {"batch_size": spent[most].batch_size, "time_basis": basis}
                seconds = [sum(one.seconds[case] for one in spent) for case in range(3)]
        except SpecError as problem:
            return row | {"reason": str(problem)}
        price, watts = self.prices.get(device.name), device.board_watts
        for part, number, opposite in _ENDS:
            hours = seconds[number] / SECONDS_PER_HOUR
            row |= {f"pages_per_second{part}": self.pages / seconds[opposite], f"gpu_hours{part}": hours}
            row[f"cost{part}"] = None if price is None else hours * price
            row[f"energy_kwh{part}"] = None if watts is None else hours * watts / WATTS_PER_KW
        return row

    def _row(self, device: HardwareSpec) -> dict[str, Any]:
        timed = self._timed[device.name]
        if isinstance(timed, SpecError):
            return {"hardware": device.name, "label": device.label, "reason": str(timed)}
        row = self._sum(device)
        for part, number, _ in _ENDS:
            least = max(ceil(one.pieces / self.gpus) * one.piece_seconds[number] for one in timed[0]) / SECONDS_PER_HOUR
            row[f"hours{part}"] = max(row[f"gpu_hours{part}"] / self.gpus, least)
        return row

    @cached_property
    def parts(self) -> pl.DataFrame:
        """A row per device and kind of pages: hardware, mode, columns, rows, pages, batch_size, gpu_hours with range, hours_share."""
        rows = []
        for name, timed in self._timed.items():
            for kind, one in zip(self.kinds, [] if isinstance(timed, SpecError) else timed[0], strict=False):
                row = {"hardware": name, "mode": kind.mode.name, "columns": kind.columns, "rows": kind.rows, "pages": kind.pages}
                hours = {f"gpu_hours{part}": one.seconds[case] / SECONDS_PER_HOUR for case, part in enumerate(ENDS)}
                rows.append(row | {"batch_size": one.batch_size, **hours})
        share = pl.col("gpu_hours") / pl.col("gpu_hours").sum().over("hardware")
        return pl.DataFrame(rows, schema=_PARTS_SCHEMA).with_columns(hours_share=share)

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of `plans` that is cheapest, or fastest without prices; None where no device runs it."""
        return None if self.rows[0]["gpu_hours"] is None else self.rows[0]

    @property
    def fastest(self) -> dict[str, Any] | None:
        """The row of `plans` with most pages a second; None where no device runs it."""
        return self.best and min((row for row in self.rows if row["gpu_hours"] is not None), key=lambda row: row["gpu_hours"])

    @cached_property
    def alternatives(self) -> pl.DataFrame:
        """What else could be chosen, on the best device: a row per resolution mode for all pages, per engine and per attention mode.

        Columns: choice ("mode", "engine" or "attention"), name, gpu_hours with range, saving (the part of the plan's own hours that it
        saves; negative where it takes more), is_plan (it is the plan itself).
        """
        rows = []
        if self.best is not None:
            device = next(one for one in self.devices if one.name == self.best["hardware"])
            own = self.best["gpu_hours"]
            for choice, name, plan in self._choices(replace(self, devices=(device,))):
                try:
                    row = plan._row(device)
                except SpecError:
                    continue
                if "gpu_hours" in row:
                    is_plan = self._runs == plan._runs
                    hours = {key: row[key] for key in ("gpu_hours", "gpu_hours_low", "gpu_hours_high")}
                    rows.append({"choice": choice, "name": name, **hours, "saving": 1 - hours["gpu_hours"] / own, "is_plan": is_plan})
        return pl.DataFrame(rows, schema=_ALTERNATIVES_SCHEMA)

    @property
    def _runs(self) -> tuple[Any, ...]:
        """What decides its hours on a device."""
        return self.run.engine, self.run.attention.resolved(self.run.model, self.run.engine).kernels, {kind.mode for kind in self.kinds}

    def _choices(self, plan: Self) -> Iterable[tuple[str, str, Self]]:
        for mode in modes() if self.run.model.learned is None else ():
            if not mode.tile_px or mode.name in self.corpus.frame.columns:
                yield "mode", mode.name, replace(plan, mode=self.mode if mode.name == self.mode.name else mode, override=True)
        for name in names("engine"):
            yield "engine", name, plan.under(name)
        for name in ATTENTIONS if self.run.engine.runnable_attention else ():
            yield "attention", name, replace(plan, run=replace(self.run, attention=load_attention(name)))

    def under(self, name: str) -> Self:
        """The plan under an engine."""
        if name == self.run.engine.name:
            return self
        engine = load_engine(name)
        found = replace(self, run=replace(self.run, engine=engine, cache=PAGED if is_server(engine) else "dynamic"))
        return found._with(kinds=self.kinds)

    def with_threads(self, preprocess_workers: int) -> Self:
        """The plan with so many threads that cut pages."""
        return replace(self, preprocess_workers=preprocess_workers)._with(kinds=self.kinds, _requests=self._requests)

    def _with(self, **known: Any) -> Self:
        """The plan, of which some properties are known."""
        self.__dict__.update(known)
        return self

    def pages_within(self, hours: float) -> Ranged:
        """How many pages like these the best device's GPUs do in so many hours; none where a batch or request takes longer."""
        found = []
        for case, whole in enumerate(self._of_best("gpu_hours")):
            shares = (turns / pieces for turns, pieces in self._turns(case, hours, self.best["hardware"]))
            found.append(self.pages * self.gpus * min(hours / whole, *shares))
        return Ranged(found[0], found[2], found[1])

    def gpus_within(self, hours: float, device: str = "") -> tuple[int | None, ...]:
        """How many of a device (the best by default) finish in so many hours: expected, at least, at most; None where a batch or request
        takes longer."""
        device, found = device or self.best["hardware"], []
        row = next(row for row in self.rows if row["hardware"] == device)
        for case, whole in enumerate(row[f"gpu_hours{part}"] for part in ENDS):
            needed = [ceil(pieces / turns) if turns else None for turns, pieces in self._turns(case, hours, device)]
            found.append(None if None in needed else max(ceil(whole / hours), *needed))
        return tuple(found)

    def _turns(self, case: int, hours: float, device: str) -> list[tuple[int, int]]:
        """How many pieces of every kind one device does in so many hours, and how many there are."""
        return [(int(hours * SECONDS_PER_HOUR / one.piece_seconds[case]), one.pieces) for one in self._timed[device][0]]

    def pages_for(self, budget: float) -> Ranged:
        """How many pages a budget pays for on the best device; a SpecError without a price."""
        if self.best is None or self.best["cost"] is None:
            raise SpecError("budget: needs a price, as in --price l4=0.8")
        cost, low, high = self._of_best("cost")
        return Ranged(*(budget / one * self.pages for one in (cost, high, low)))

    def _of_best(self, column: str) -> list[float]:
        if self.best is None:
            raise SpecError(f"hardware: none of these runs it; {self.rows[0]['reason']}")
        return [self.best[f"{column}{part}"] for part in ENDS]


def _try_each(devices: Iterable[HardwareSpec], find: Callable[[HardwareSpec], Any]) -> dict[str, Any]:
    """What is found of every device, by its name; an error in place of what has none."""
    found = {}
    for device in devices:
        try:
            found[device.name] = find(device)
        except SpecError as problem:
            found[device.name] = problem
    return found


def _known(found: Any) -> Any:
    """What was found, of `_try_each`; raises it where it is an error."""
    if isinstance(found, SpecError):
        raise found
    return found
