"""What a sweep computes: cases (model, engine, attention, precision, device, mode) times pages times values of the workload.

Points are numbered through: the case changes slowest, then the page, then the workload's values in the order given. Any stretch of points
is computed alone, so that a sweep of any length takes the memory of one stretch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_flops.errors import SpecError, one_of
from ocr_flops.spec.catalog import group_config
from ocr_flops.spec.overrides import GROUPS
from ocr_flops.spec.run_spec import RunSpec, WorkloadKeys, compose_sweep, read_run, read_workload
from ocr_flops.spec.workload import Workload
from ocr_flops.studies.sweeps import pages as points
from ocr_flops.studies.sweeps.pages import Pages
from ocr_flops.studies.sweeps.ranges import Axes, Value, split, values
from ocr_flops.timing.estimate import Estimate, estimate_run

if TYPE_CHECKING:
    import polars as pl

NUMBERS = ("image_width_px", "image_height_px", "columns", "rows", "prompt_tokens", "output_tokens", "batch_size")  # columns of a workload
NAMED = (
    "model",
    "engine",
    "attention",
    "hardware",
    "dtype",
    "cache",
    "prefill_logits",
    "workload",
    "workload.global_px",
    "workload.tile_px",
)
DEVICES = ("meta", "cpu", "cuda")
MAX_CASES = 100_000


@dataclass(frozen=True)
class Case:
    """One choice of everything but the numbers of the workload.

    Args:
        run: its specs.
        keys: the workload's keys, of which sweeps change the numbers.
        labels: values, by key, that no column of a frame shows by itself.
        chosen: its value of every axis that is no number of the workload.
    """

    run: RunSpec
    keys: WorkloadKeys
    labels: tuple[tuple[str, Value], ...] = ()
    chosen: tuple[tuple[str, Value], ...] = ()

    def estimate(self, workload: Workload) -> Estimate:
        """The cost of points in this case."""
        return estimate_run(self.run, workload)

    def frame(self, workload: Workload) -> pl.DataFrame:
        """One row per point and stage, with times where the case has a device."""
        costs = self.estimate(workload)
        return costs.stages if self.run.hardware is None else costs.on(self.run.hardware).stages


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep, resolved; nothing is computed yet.

    Args:
        name, label: of its config.
        cases: at least one.
        axes: numbers of the workload that vary, in the order in which they vary, the last one fastest.
        pages: grids or images; None where the workload's own keys say which.
        measure: where the real model runs too: "meta", "cpu", "cuda"; None for nowhere.
        measured_steps: decode steps that it runs at most.
        config: what was composed, for the record: lists and ranges in place of single values.
        impossible: combinations that cannot be, with why; they are no cases.
    """

    name: str
    label: str
    cases: tuple[Case, ...]
    axes: tuple[tuple[str, np.ndarray], ...]
    pages: Pages | None
    measure: str | None
    measured_steps: int
    config: dict[str, Any]
    impossible: tuple[tuple[str, str], ...] = ()

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """What was asked for and is not in the sweep, files and combinations, with why."""
        return (*(self.pages.skipped if self.pages else ()), *self.impossible)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Pages, then values of each axis."""
        return (1 if self.pages is None else len(self.pages), *(len(column) for _, column in self.axes))

    @property
    def points_per_case(self) -> int:
        return math.prod(self.shape)

    @property
    def points(self) -> int:
        return len(self.cases) * self.points_per_case

    @property
    def stages(self) -> tuple[str, ...]:
        return self.cases[0].run.stages

    @property
    def rows(self) -> int:
        return self.points * len(self.stages)

    def stretches(self, first: int, last: int) -> Iterable[tuple[Case, int, np.ndarray]]:
        """Points first..last - 1 by case: the case, the number of its first point among all, and their indices within the case."""
        while first < last:
            number, start = divmod(first, self.points_per_case)
            stop = min(start + last - first, self.points_per_case)
            yield self.cases[number], first, np.arange(start, stop)
            first += stop - start

    def workload(self, case: Case, indices: np.ndarray) -> Workload:
        """Those points of a case as columns."""
        page, *places = np.unravel_index(indices, self.shape)
        fields = {name: column[page] for name, column in (self.pages.fields if self.pages else {}).items()}
        fields |= {name: column[place] for (name, column), place in zip(self.axes, places, strict=True)}
        if not fields:
            fields["batch_size"] = np.full(len(indices), case.keys.batch_size)
        return case.keys._replace(**fields).workload()

    def frame(self, first: int = 0, last: int | None = None) -> pl.DataFrame:
        """Rows of points first..last - 1, all by default: one per point and stage.

        Columns: all of `of.sweep`; point (the number), image and page (file and number in it, of pages from files), model, prefill_logits,
        the values of keys that have no column by themselves, and vendor_supported.
        """
        import polars as pl

        stretches = self.stretches(first, self.points if last is None else last)
        return pl.concat([self._frame(*stretch) for stretch in stretches])

    def _frame(self, case: Case, first: int, indices: np.ndarray) -> pl.DataFrame:
        import polars as pl

        workload, width = self.workload(case, indices), len(self.stages)
        frame = case.frame(workload)
        supported = np.broadcast_to(points.vendor_supported(*map(np.asarray, (workload.columns, workload.rows))), len(indices))
        numbers = pl.Series("point", np.repeat(np.arange(first, first + len(indices)), width))
        whole = frame.select(
            numbers,
            *self._image(indices),
            pl.col("stage"),
            pl.lit(case.run.model.name, pl.Categorical).alias("model"),
            pl.col("attention", "engine", "dtype", "cache"),
            pl.lit(case.run.prefill_logits, pl.Categorical).alias("prefill_logits"),
            *(pl.lit(value).alias(key) for key, value in case.labels),
            pl.all().exclude("stage", "attention", "engine", "dtype", "cache"),
        )
        return whole.insert_column(whole.columns.index("tiles") + 1, pl.Series("vendor_supported", np.repeat(supported, width)))

    def _image(self, indices: np.ndarray) -> list[pl.Series]:
        import polars as pl

        if self.pages is None or not self.pages.images:
            return []
        page = np.unravel_index(indices, self.shape)[0]
        names, numbers = zip(*self.pages.images, strict=True)
        rows = np.repeat(page, len(self.stages))
        return [pl.Series("image", names, pl.String).gather(rows), pl.Series("page", numbers, pl.Int64).gather(rows)]

    def checked(self) -> Sweep:
        """The same without combinations that cannot be, such as flash in fp32, which would else be refused in the middle of the sweep.

        Raises:
            SpecError: a value that can be in no combination: one out of range, a grid on a mode without tiles, a device without a figure
                for the precision, or a result beyond 2^62, naming the field.
        """
        kept, problems = [], []
        for case in self.cases:
            try:
                self._check(case)
                kept.append(case)
            except SpecError as problem:
                problems.append((case, problem))
        fine = {pair for case in kept for pair in case.chosen}
        for case, problem in problems:
            if not kept or not fine.issuperset(case.chosen):
                raise problem
        words = [(", ".join(f"{key}={value}" for key, value in case.chosen), str(problem)) for case, problem in problems]
        return replace(self, cases=tuple(kept), impossible=tuple(words))

    def _check(self, case: Case) -> None:
        """Raises SpecError where a case cannot be."""
        pages, axes, corners = self.pages.fields if self.pages else {}, dict(self.axes), []
        for pick in (np.min, np.max):
            corner = {name: column for name, column in pages.items()} | {name: int(pick(column)) for name, column in axes.items()}
            corners.append(case.keys._replace(**corner).workload())
        case.estimate(corners[1]).stage_numbers  # noqa: B018
        if case.run.hardware is not None:
            case.estimate(corners[0].upper_bound()).on(case.run.hardware).stages  # noqa: B018


def load_sweep(overrides: Sequence[str] = ()) -> Sweep:
    """The sweep that a command line chooses.

    Args:
        overrides: those of `load_run`, of which any may have several values ("workload.columns=1:30", "attention=[eager,sdpa]",
            "hardware.memory_bytes=[80e9,141e9]"), and such as "sweep=vendor", "sweep.max_tiles=6", "sweep.images=scans", "measure=meta".

    Raises:
        SpecError: one line naming the key, its value and what is allowed.
    """
    plain, axes = split(overrides)
    chosen_groups = [f"{key}={axes[key][0]}" for key in GROUPS if key in axes]  # so that overrides of their keys have something to change
    config = compose_sweep([*chosen_groups, *plain])
    chosen = config.pop("sweep")
    measure, steps = config.pop("measure"), config.pop("measured_steps")
    if measure is not None:
        one_of("measure", measure, DEVICES)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise SpecError(f"measured_steps: {steps!r} is not a whole number of at least 1")
    given = {text.partition("=")[0] for text in plain}
    own = {key: values(key, value) for key, value in (chosen["axes"] or {}).items() if key not in given}
    axes = {**own, **axes}
    pages = _pages(chosen, config, axes)
    inner = {key: axis for key, axis in axes.items() if key.removeprefix("workload.") in NUMBERS and key.startswith("workload.")}
    outer = {key: axis for key, axis in axes.items() if key not in inner}
    sweep = Sweep(
        chosen["name"],
        chosen["label"],
        tuple(_cases(config, outer, plain)),
        tuple((key.removeprefix("workload."), _column(key, axis)) for key, axis in inner.items()),
        pages,
        measure,
        steps,
        _record(config, chosen, axes) | {"measure": measure, "measured_steps": steps},
    )
    return sweep.checked()


def _pages(chosen: dict[str, Any], config: dict[str, Any], axes: Axes) -> Pages | None:
    """The pages of sweeps that set them; refuses settings of the page that would then count for nothing."""
    name, rule, paths = chosen["name"], chosen["grids"], chosen["images"]
    grid = [key for key in ("workload.columns", "workload.rows") if key in axes or config["workload"][key[9:]] is not None]
    image = [key for key in ("workload.image_width_px", "workload.image_height_px") if key in axes]
    if paths is None and name == "images":
        raise SpecError("sweep.images: none given; name a folder, a file or a list of files, as in sweep.images=scans")
    if rule is not None and paths is not None:
        raise SpecError("sweep.images: a sweep over grids has no images; choose sweep=images")
    if (rule is not None or paths is not None) and (grid or image):
        raise SpecError(f"{(grid + image)[0]}: sweep={name} sets the pages by itself; choose sweep=product to set this")
    if grid and image:
        raise SpecError(f"{image[0]}: has no effect beside {grid[0]}; vary either the image's size or the grid")
    if paths is not None:
        return points.images(paths, chosen["dpi"])
    return None if rule is None else points.grids(rule, chosen["min_tiles"], chosen["max_tiles"])


def _column(key: str, axis: Iterable[Value]) -> np.ndarray:
    """The values of an axis as int64."""
    if isinstance(axis, range):
        return np.arange(axis.start, axis.stop, axis.step, dtype=np.int64)
    for value in axis:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**62:
            raise SpecError(f"{key}: {value!r} is not a whole number")
    return np.array(axis, np.int64)


def _cases(config: dict[str, Any], outer: Axes, plain: Sequence[str]) -> Iterable[Case]:
    """Every combination of the axes that are no numbers of the workload. Groups come first, so that fields are set in what was chosen."""
    keys = sorted(outer, key=lambda key: "." in key)
    if math.prod(len(outer[key]) for key in keys) > MAX_CASES:
        raise SpecError(f"{', '.join(keys)}: more than {MAX_CASES:,} combinations; vary numbers of the workload instead, or fewer values")
    groups = {key: {value: _choice(key, value, plain) for value in outer[key]} for key in keys if key in GROUPS}
    for combination in itertools.product(*(outer[key] for key in keys)):
        whole, labels = dict(config), []
        for key, value in zip(keys, combination, strict=True):
            top, _, field = key.partition(".")
            if key in groups:
                whole[key] = deepcopy(groups[key][value])
            elif field:
                whole[top] = _with(deepcopy(whole[top]), key, field, value)
            else:
                whole[key] = value
            if key not in NAMED:
                labels.append((key, _label(outer[key], value)))
        yield Case(read_run(whole), read_workload(whole["workload"]), tuple(labels), tuple(zip(keys, combination, strict=True)))


def _label(axis: Iterable[Value], value: Value) -> Value:
    """A value as a column shows it: all of an axis are of one type."""
    kinds = {type(other) for other in axis}
    return value if len(kinds) == 1 else float(value) if kinds == {int, float} else str(value)


def _choice(group: str, name: Value, plain: Sequence[str]) -> dict[str, Any]:
    """A config of a group with the overrides of its keys that the command line has."""
    return group_config(group, name, [text for text in plain if text.startswith(f"{group}.")])


def _with(tree: Any, key: str, field: str, value: Value) -> Any:
    """A composed group with one field replaced."""
    top, *path = key.split(".")
    inner = tree
    for part in path[:-1]:
        inner = inner.get(part) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or path[-1] not in inner:
        have = ", ".join(inner) if isinstance(inner, dict) else "no keys; choose one by name too" if tree is None else "no such keys"
        raise SpecError(f"{key}: unknown key; {top} has {have}")
    inner[path[-1]] = value
    return tree


def _record(config: dict[str, Any], chosen: dict[str, Any], axes: Axes) -> dict[str, Any]:
    """The composed config with its axes, as plain values."""
    listed = {
        key: f"{axis.start}:{axis[-1]}:{axis.step}" if isinstance(axis, range) else list(axis)  # both ends, as given
        for key, axis in axes.items()
    }
    return {**config, "sweep": {**chosen, "axes": listed}}
