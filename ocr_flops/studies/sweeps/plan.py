"""What a sweep computes: cases (model, engine, attention, precision, device, resolution) times pages times values of the workload.

Points are numbered: the case changes slowest, then the page, then the workload's values in the order given, the last one fastest. Any slice
of points can be computed alone, so a sweep of any length takes the memory of one slice.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl

from ocr_flops.errors import SpecError, one_of, whole_number
from ocr_flops.files import Progress, no_progress
from ocr_flops.measure.plan import ModelSource, split_source
from ocr_flops.spec.overrides import GROUPS, SWEEP, compose
from ocr_flops.spec.reading import names
from ocr_flops.spec.run_spec import check_mode_keys, check_page_keys
from ocr_flops.spec.workload import REST, Workload
from ocr_flops.studies.sweeps.cases import Case, list_cases
from ocr_flops.studies.sweeps.pages import Pages, grid_pages, image_pages, is_published_grid
from ocr_flops.studies.sweeps.ranges import Axes, Value, read_values, split_overrides
from ocr_flops.timing.estimate import time_run

NUMBERS = ("image_width_px", "image_height_px", "columns", "rows", *REST)  # columns of a workload
DEVICES = ("meta", "cpu", "cuda")
LEVELS = ("stage", "module")


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep whose points are known; nothing is computed yet.

    Args:
        name, label: of its config.
        cases: at least one.
        axes: numbers of the workload that vary, with their values (int64); the last one varies fastest.
        pages: grids or images; None where the workload's own keys say which.
        measure: where the real model runs too: "meta", "cpu", "cuda"; None for nowhere.
        measured_steps: decode steps that it runs at most.
        source: the code and weights of the real model.
        config: what was composed, for the record, with lists and ranges in place of single values.
        impossible: combinations that cannot be, with why; they are no cases.
        together: axes that vary as one, as wide as long.
    """

    name: str
    label: str
    cases: tuple[Case, ...]
    axes: tuple[tuple[str, np.ndarray], ...]
    pages: Pages | None
    measure: str | None
    measured_steps: int
    source: ModelSource
    config: dict[str, Any]
    impossible: tuple[tuple[str, str], ...] = ()
    together: tuple[str, ...] = ()

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Files and combinations that were given and are not in the sweep, with why."""
        return (*(self.pages.skipped if self.pages else ()), *self.impossible)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """How many pages, then how many values of each axis."""
        lengths = (len(column) for name, column in self.axes if name not in self.together[1:])
        return (1 if self.pages is None else len(self.pages), *lengths)

    @property
    def points_per_case(self) -> int:
        """How many points a case has."""
        return math.prod(self.shape)

    @property
    def points(self) -> int:
        """How many points the sweep has."""
        return len(self.cases) * self.points_per_case

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of every point."""
        return self.cases[0].run.stages

    @property
    def rows(self) -> int:
        """How many rows the sweep has: one per point and stage."""
        return self.points * len(self.stages)

    def slices(self, first: int, last: int) -> Iterable[tuple[Case, int, np.ndarray]]:
        """Points first to last - 1, by case: the case, the number of its first point among all, and the points' indices in the case."""
        while first < last:
            case, start = divmod(first, self.points_per_case)
            stop = min(start + last - first, self.points_per_case)
            yield self.cases[case], first, np.arange(start, stop)
            first += stop - start

    def workload(self, case: Case, indices: np.ndarray) -> Workload:
        """Points of a case as columns."""
        page, *places = np.unravel_index(indices, self.shape)
        fields = {name: column[page] for name, column in (self.pages.fields if self.pages else {}).items()}
        leading = [name for name, _ in self.axes if name not in self.together[1:]]
        where = dict(zip(leading, places, strict=True))
        fields |= {name: column[where[self.together[0] if name in self.together else name]] for name, column in self.axes}
        if not fields:
            fields["batch_size"] = np.full(len(indices), case.keys.batch_size)
        return case.keys._replace(**fields).workload()

    def stages_frame(self, first: int = 0, last: int | None = None) -> pl.DataFrame:
        """A row per point and stage, of points first to last - 1; of all by default.

        Columns: all of `of.sweep`; point (the number), image and page (file and number in it, of pages from files), model, prefill_logits,
        the values of keys that have no column by themselves, vendor_supported, needed_bytes and fits (of the whole run).
        """
        return self.rows_frame(first, self.points if last is None else last, "stage")

    def rows_frame(self, first: int, last: int, level: str) -> pl.DataFrame:
        """The same, at level "module" a row per point, stage and module."""
        return pl.concat([self._slice_frame(*one, level) for one in self.slices(first, last)])

    @property
    def prices(self) -> float | dict[str, float] | None:
        """Of a device hour, of all devices or by their names."""
        return self.config["sweep"]["price"]

    def _slice_frame(self, case: Case, first: int, indices: np.ndarray, level: str) -> pl.DataFrame:
        workload = self.workload(case, indices)
        frame = case.frame(workload, level)
        width, names = frame.height // len(indices), ["stage", "module"][: 1 + (level == "module")]
        published = np.broadcast_to(is_published_grid(*map(np.asarray, (workload.columns, workload.rows))), len(indices))
        numbers = pl.Series("point", np.repeat(np.arange(first, first + len(indices)), width))
        whole = frame.select(
            numbers,
            *self._image_columns(indices, width),
            pl.col(names),
            pl.lit(case.run.model.title, pl.Categorical).alias("model"),
            pl.col("attention", "engine", "dtype", "cache"),
            pl.lit(case.run.prefill_logits, pl.Categorical).alias("prefill_logits"),
            *(pl.lit(value).alias(key) for key, value in case.labels),
            pl.all().exclude(*names, "attention", "engine", "dtype", "cache"),
        )
        return whole.insert_column(whole.columns.index("tiles") + 1, pl.Series("vendor_supported", np.repeat(published, width)))

    def _image_columns(self, indices: np.ndarray, width: int) -> list[pl.Series]:
        """The file of every row, and the page's number in it; none for pages that are no files."""
        if self.pages is None or not self.pages.images:
            return []
        images = pl.DataFrame(self.pages.images, {"image": pl.String, "page": pl.Int64}, orient="row")
        return images[np.repeat(np.unravel_index(indices, self.shape)[0], width)].get_columns()

    def leave_out_impossible(self, given: Iterable[str] = ()) -> Self:
        """The same sweep without combinations that cannot be, such as flash in fp32, so that no part of it fails later.

        Args:
            given: overrides that hold for all combinations.

        Raises:
            SpecError: a value that can be in no combination: one out of range, a grid on a resolution without tiles, a device without a
                figure for the precision, or a result beyond 2^62, naming the field.
        """
        possible, problems, pages = [], [], self.pages.fields if self.pages else {}
        ends = [{name: int(end(column)) for name, column in self.axes} for end in (np.min, np.max)]
        for case in self.cases:
            try:
                check_mode_keys(case.run.model, [*given, *(f"{key}={value}" for key, value in case.choices)])
                least, largest = (case.keys._replace(**pages, **end).workload() for end in ends)
                case.estimate(largest).stage_numbers  # noqa: B018
                if case.run.hardware is not None:
                    time_run(case.run, case.estimate(least.upper_bound())).stages  # noqa: B018
                possible.append(case)
            except SpecError as problem:
                problems.append((case, problem))
        seen = {choice for case in possible for choice in case.choices}
        for case, problem in problems:
            if not possible or not seen.issuperset(case.choices):
                raise problem
        words = [(", ".join(f"{key}={value}" for key, value in case.choices), str(problem)) for case, problem in problems]
        return replace(self, cases=tuple(possible), impossible=tuple(words))


def load_sweep(overrides: Sequence[str] = (), progress: Progress = no_progress) -> Sweep:
    """The sweep that a command line chooses.

    Args:
        overrides: those of `load_run`, of which any may have several values ("workload.columns=1:30", "attention=[eager,sdpa]",
            "hardware.memory_bytes=[80e9,141e9]"), and such as "sweep=vendor", "sweep.max_tiles=6", "sweep.images=scans", "measure=meta",
            with "snapshot=DIR", "trust_remote_code=true", "checkpoint=DIR" for what is measured.
        progress: called while files are read.

    Raises:
        SpecError: one line naming the key, its value and what is allowed.
    """
    rest, source = split_source(overrides)
    check_page_keys(rest)
    plain, axes = split_overrides(rest)
    first_choices = [f"{key}={axes[key][0]}" for key in GROUPS if key in axes]  # so that overrides of their keys have something to change
    config = compose([*first_choices, *plain], SWEEP)
    settings, measure, steps = (config.pop(key) for key in ("sweep", "measure", "measured_steps"))
    if measure is not None:
        one_of("measure", measure, DEVICES)
    elif source:
        raise SpecError(f"{next(iter(source))}: the real model does not run beside this sweep; add measure=meta, or leave this out")
    whole_number("measured_steps", steps, 1)
    if not isinstance(settings["axes"] or {}, dict):
        raise SpecError(
            f"sweep.axes: {settings['axes']!r} is no mapping of keys to lists or ranges; give values as in workload.columns=1:30"
        )
    given = {text.partition("=")[0] for text in plain}
    axes = {key: read_values(key, value) for key, value in (settings["axes"] or {}).items() if key not in given} | axes
    together = _read_together(settings["zip"], axes)
    check_prices(settings["price"])
    one_of("sweep.level", settings["level"], LEVELS)
    numbers = {key: axis for key, axis in axes.items() if key.startswith("workload.") and key.removeprefix("workload.") in NUMBERS}
    choices = {key: axis for key, axis in axes.items() if key not in numbers}
    listed = {  # both ends of ranges, as given
        key: f"{axis.start}:{axis[-1]}:{axis.step}" if isinstance(axis, range) else list(axis) for key, axis in axes.items()
    }
    return Sweep(
        settings["name"],
        settings["label"] + (f", {' and '.join(together)} together" if together else ""),
        tuple(list_cases(config, choices, plain, [key for key in together if key in choices])),
        tuple((key.removeprefix("workload."), _as_column(key, axis)) for key, axis in numbers.items()),
        _find_pages(settings, config, axes, progress),
        measure,
        steps,
        ModelSource(**source),
        {**config, **source, "sweep": {**settings, "axes": listed}, "measure": measure, "measured_steps": steps},
        together=tuple(key.removeprefix("workload.") for key in together if key in numbers),
    ).leave_out_impossible(plain)


def _read_together(keys: Any, axes: Axes) -> tuple[str, ...]:
    """The axes that sweep.zip names: they vary, by as many values each, and are all numbers of the workload or none is."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise SpecError(f"sweep.zip: {keys!r} is not a list of keys, as in [workload.image_width_px,workload.image_height_px]")
    for key in keys:
        one_of("sweep.zip", key, axes)
    lengths = {key: len(axes[key]) for key in keys}
    if len(set(lengths.values())) > 1:
        raise SpecError(f"sweep.zip: {', '.join(f'{key} has {count} values' for key, count in lengths.items())}; give as many of each")
    if len({key.startswith("workload.") and key.removeprefix("workload.") in NUMBERS for key in keys}) > 1:
        raise SpecError(f"sweep.zip: {', '.join(keys)}: numbers of the workload vary with each other, other keys with each other")
    return tuple(keys)


def check_prices(prices: Any) -> None:
    """Raises SpecError where sweep.price is no price above 0, nor prices of devices by name."""
    for name, price in prices.items() if isinstance(prices, dict) else [] if prices is None else [(None, prices)]:
        if name is not None:
            one_of("sweep.price", name, names("hardware"))
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price < math.inf:
            raise SpecError(f"sweep.price: {price!r} is no price above 0; give one for all, or of devices as in {{l4: 0.8}}")


def _find_pages(settings: dict[str, Any], config: dict[str, Any], axes: Axes, progress: Progress) -> Pages | None:
    """The pages of sweeps that set them; a SpecError where a setting of the page would count for nothing, or they cannot be found."""
    name, rule, paths = settings["name"], settings["grids"], settings["images"]
    grid = [key for key in ("workload.columns", "workload.rows") if key in axes or config["workload"][key[9:]] is not None]
    image = [key for key in ("workload.image_width_px", "workload.image_height_px", "workload.pages") if key in axes]
    image += ["workload.pages"] if config["workload"]["pages"] not in (None, 1) else []
    if paths is None and name == "images":
        raise SpecError("sweep.images: none given; name a folder, a file or a list of files, as in sweep.images=scans")
    if rule is not None and paths is not None:
        raise SpecError("sweep.images: a sweep over grids has no images; choose sweep=images")
    if (rule is not None or paths is not None) and (grid or image):
        raise SpecError(f"{(grid + image)[0]}: sweep={name} sets the pages by itself; choose sweep=product to set this")
    if paths is not None:
        return image_pages(paths, settings["dpi"], progress)
    return None if rule is None else grid_pages(rule, settings["min_tiles"], settings["max_tiles"])


def _as_column(key: str, axis: Iterable[Value]) -> np.ndarray:
    """The values of an axis as int64."""
    if isinstance(axis, range):
        return np.arange(axis.start, axis.stop, axis.step, dtype=np.int64)
    for value in axis:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**62:
            raise SpecError(f"{key}: {value!r} is not a whole number")
    return np.array(axis, np.int64)
