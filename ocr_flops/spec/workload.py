"""What is run: views, tokens and batch of one point, or of many points as columns; and the points around one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import isqrt
from typing import Any

import numpy as np

from ocr_flops.errors import SpecError
from ocr_flops.spec import tiling
from ocr_flops.spec.catalog import load_mode, modes
from ocr_flops.spec.page_rules import ONE_PAGE, PageRule
from ocr_flops.spec.specs import Mode
from ocr_flops.units import workload_label

Column = int | np.ndarray

PATCH_PX = 16
LIMITS = {  # the numeric fields, each with its least and greatest value; generous, since a result beyond 2^62 is an error of its own
    "global_px": (16, 16_384),
    "tile_px": (0, 16_384),
    "columns": (1, 10_000),
    "rows": (1, 10_000),
    "prompt_tokens": (0, 1_048_576),
    "output_tokens": (0, 1_048_576),
    "batch_size": (1, 65_536),
    "pages": (1, 4096),
    "image_width_px": (0, tiling.MAX_SIDE_PX),
    "image_height_px": (0, tiling.MAX_SIDE_PX),
}
REST = ("prompt_tokens", "output_tokens", "batch_size", "pages")  # fields beside the page
MAX_TILES = 10_000
MAX_CONTEXT_TOKENS = 2_097_152
STEPS = 12  # from the largest grids of the tile rule to one beyond them


@dataclass(frozen=True, eq=False)
class Workload:
    """One point, or as many points as its NumPy columns are long.

    Every numeric field is an int or a column (an int64 array, a list, a Series); columns have one length, ints hold for all points.

    Raises:
        SpecError: naming the field, the value and what is allowed.
    """

    global_px: Column  # side of the square global view, a multiple of 16 pixels
    tile_px: Column = 0  # side of the square tiles, a multiple of 16 pixels; 0 for a mode without tiles
    columns: Column = 1  # of the tile grid; 1 x 1 means no tiles
    rows: Column = 1
    prompt_tokens: Column = 10  # text tokens beside the image tokens, BOS included
    output_tokens: Column = 256  # tokens generated, each one decode step
    batch_size: Column = 1  # requests run together, each of a page where nothing else is said
    image_width_px: Column = 0  # the page's size where it is known; 0 where the grid was given
    image_height_px: Column = 0
    pages: Column = 1  # in one request, all alike, where a model takes several
    mode: str = ""  # the resolution mode's name, for people; "" for columns of several modes
    page_rule: PageRule | None = None  # what the model makes of a page; None for DeepSeek-OCR's views and tiles, as given

    def __post_init__(self) -> None:
        for name in LIMITS:
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.page_rule is not None:
            self._apply_page_rule(self.page_rule)
        lengths = {name: len(column) for name, column in self._columns.items()}
        if len(set(lengths.values())) > 1:
            raise SpecError(f"columns of different lengths: {', '.join(f'{name} {length}' for name, length in lengths.items())}")
        for name, (least, greatest) in LIMITS.items():
            least = 0 if name == "global_px" and self.page_rule is not None else least
            _check_range(name, getattr(self, name), least, greatest)
        for name in ("global_px", "tile_px"):
            value = getattr(self, name)
            _refuse_where(value % PATCH_PX != 0, f"{name}: {{}} is not a multiple of {PATCH_PX} (SAM's patch)", value)
        message = "columns x rows: {} x {} on mode {!r}, which has no tiles; only 1 x 1 is possible"
        untiled = self.tile_px == 0 if self.page_rule is None else False
        _refuse_where((self.tiles > 0) & untiled, message, self.columns, self.rows, self.mode or "without tiles")
        _check_range("tiles (columns x rows)", self.columns * self.rows, 1, MAX_TILES)
        _check_range("context_tokens (image and prompt)", self.context_tokens, 1, MAX_CONTEXT_TOKENS)

    def _apply_page_rule(self, rule: PageRule) -> None:
        """What the model makes of the pages: its sizes and its tokens; the fields of views say what of that they can."""
        sizes = rule.with_pages(rule.sizes(self.image_width_px, self.image_height_px), self.pages)
        tokens = rule.tokens_of(sizes)
        views = {"global_px": getattr(rule, "view_px", 0), "tile_px": getattr(rule, "tile_px", 0) if "tiles" in sizes else 0}
        views |= {"columns": sizes.get("tile_columns", 1), "rows": sizes.get("tile_rows", 1), "mode": ""}
        self.__dict__.update(views, page_sizes=sizes, page_tokens=tokens)

    def for_page_rule(self, rule: PageRule | None) -> Workload:
        """The same pages and texts as another model takes them: by its page rule, or (None) as DeepSeek-OCR's views and tiles.

        A page of which only views are known is as large as these. DeepSeek-OCR takes a page that another model was asked about in the mode
        gundam, and one alone.
        """
        _refuse_where((rule is None) & (self.pages != 1), ONE_PAGE)
        if rule == self.page_rule:
            return self
        rest = {name: getattr(self, name) for name in REST}
        width, height = self.page_px
        if rule is None:
            return Workload.from_image(width, height, **rest)
        return Workload(0, image_width_px=width, image_height_px=height, page_rule=rule, **rest)

    @property
    def page_px(self) -> tuple[Column, Column]:
        """Width and height of a page in pixels: as given, or of its views where only these are known."""
        tiled = self.tiles > 0
        sides = []
        for given, count in ((self.image_width_px, self.columns), (self.image_height_px, self.rows)):
            drawn = count * self.tile_px * tiled + self.global_px * (1 - tiled)
            sides.append(given + drawn * (given == 0))
        return sides[0], sides[1]

    @classmethod
    def from_image(cls, width_px: Column, height_px: Column, mode: str | Mode = "gundam", **rest: Any) -> Workload:
        """The workload of an image: its grid is the one that the tile rule chooses.

        Args:
            width_px, height_px: image size in pixels, ints or int64 columns; a SpecError refuses a size that no image has.
            mode: a mode's name ("gundam", "tiny", ...) or a `Mode`.
            **rest: prompt_tokens, output_tokens, batch_size, pages.
        """
        mode = load_mode(mode) if isinstance(mode, str) else mode
        _check_range("tile_px", mode.tile_px, *LIMITS["tile_px"])  # before the tile rule computes with it
        # Sizes are checked for every mode, and the published infer() cuts by the 640 px rule whatever the tile size.
        grid = tiling.choose_grid(width_px, height_px, mode.tile_px or 640, mode.untiled_up_to_px)
        columns, rows = grid if mode.tile_px else (1, 1)
        return cls(mode.global_px, mode.tile_px, columns, rows, image_width_px=width_px, image_height_px=height_px, mode=mode.name, **rest)

    @classmethod
    def from_grid(cls, columns: Column = 1, rows: Column = 1, mode: str | Mode = "gundam", **rest: Any) -> Workload:
        """The workload of an explicit tile grid of any size, ints or int64 columns; mode and rest as for `from_image`."""
        mode = load_mode(mode) if isinstance(mode, str) else mode
        return cls(mode.global_px, mode.tile_px, columns, rows, mode=mode.name, **rest)

    @classmethod
    def stack(cls, workloads: list[Workload]) -> Workload:
        """Many workloads as one of columns, in order."""
        if len(workloads) == 1:
            return workloads[0]
        modes, rules = {workload.mode for workload in workloads}, {workload.page_rule for workload in workloads}
        if len(rules) > 1:
            raise SpecError("workloads: pages of different models cannot stand in one workload")
        columns = {
            name: np.concatenate([np.broadcast_to(getattr(workload, name), workload.points) for workload in workloads], dtype=np.int64)
            for name in LIMITS
        }
        return cls(**columns, mode=modes.pop() if len(modes) == 1 else "", page_rule=rules.pop())

    def __repr__(self) -> str:
        return f"Workload({workload_label(self)})" if self.is_single else f"Workload(columns of {self.points:,} points)"

    def upper_bound(self) -> Workload:
        """One point that is at least as large in every field as any of these."""
        return self._mapped(lambda value: int(value.max()))

    def point(self, number: int) -> Workload:
        """One of the points alone."""
        return self._mapped(lambda value: int(value[number]))

    def as_floats(self) -> Workload:
        """The same points in float64, for results that may not fit an int64."""
        return self._mapped(lambda value: value.astype(np.float64))

    def take(self, where: np.ndarray) -> Workload:
        """Those points of the columns."""
        return self._mapped(lambda value: value[where])

    def _mapped(self, change: Callable[[np.ndarray], Any]) -> Workload:
        """The same workload with every column changed, without checking it again."""
        part = object.__new__(Workload)
        part.__dict__.update(self.__dict__, **{name: change(column) for name, column in self._columns.items()})
        del part.__dict__["_columns"]
        if self.page_rule is not None:
            sizes = {name: change(size) if isinstance(size, np.ndarray) else size for name, size in self.page_sizes.items()}
            tokens = change(self.page_tokens) if isinstance(self.page_tokens, np.ndarray) else self.page_tokens
            part.__dict__.update(page_sizes=sizes, page_tokens=tokens)
        return part

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        """The fields that are columns."""
        return {name: value for name in LIMITS if isinstance(value := getattr(self, name), np.ndarray)}

    @property
    def points(self) -> int:
        """How many points the columns hold; 1 for a single point."""
        return max(map(len, self._columns.values()), default=1)

    @property
    def is_single(self) -> bool:
        """Whether every field is an int."""
        return not self._columns

    @property
    def tiles(self) -> Column:
        """Tiles per page; 0 where the grid is 1 x 1."""
        return self.columns * self.rows * ((self.columns > 1) | (self.rows > 1))

    @property
    def image_tokens(self) -> Column:
        """Tokens that stand for the pages of one request."""
        if self.page_rule is not None:
            return self.page_tokens
        return tiling.global_tokens(self.global_px) + tiling.tile_tokens(self.tile_px, self.columns, self.rows)

    @property
    def context_tokens(self) -> Column:
        """Tokens of one request's prefill: images and prompt."""
        return self.image_tokens + self.prompt_tokens


def _whole(name: str, value: Any) -> Column:
    if isinstance(value, list | tuple | range) or hasattr(value, "to_numpy"):  # the latter a Series of Polars or pandas
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "iu" or value.ndim != 1 or not len(value):
            raise SpecError(f"{name}: an array of {value.dtype} and shape {value.shape}; a column is a non-empty 1-d array of integers")
        return value.astype(np.int64, copy=False)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise SpecError(f"{name}: {value!r} is not a whole number")
    return int(value)


def _check_range(name: str, value: Column, least: int, greatest: int) -> None:
    wrong = (value < least) | (value > greatest)
    _refuse_where(wrong, f"{name}: {{}} is not a whole number from {least} to {greatest}", value)


def _refuse_where(wrong: Any, message: str, *values: Column) -> None:
    """Raises the message with the first of the values that are wrong; a constant is wrong as a whole."""
    if wrong is not False and np.any(wrong):
        first = np.argmax(wrong)
        raise SpecError(message.format(*(int(value[first]) if isinstance(value, np.ndarray) else value for value in values)))


def neighbours(workload: Workload, itself: bool = False) -> Workload:
    """Columns of points around one: no tiles and the 22 grids of the tile rule, or the views of all modes without tiles; by size.

    Args:
        workload: one point.
        itself: whether it is among them where its grid or its view is none of these, with grids on the way to it: costs grow with the
            square of its tokens, and a straight line to it would hide that.
    """
    if workload.page_rule is not None:  # the same page, smaller and larger
        width, height = workload.page_px
        steps = np.array([4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32])
        sides = (np.maximum(1, side * steps // 16) for side in (width, height))
        return replace(workload, **dict(zip(("image_width_px", "image_height_px"), sides, strict=True)))
    free = replace(workload, image_width_px=0, image_height_px=0)
    if not workload.tile_px:
        sides = {mode.global_px for mode in modes() if not mode.tile_px} | ({workload.global_px} if itself else set())
        return replace(free, global_px=np.array(sorted(sides)), mode="")
    grids = [(1, 1), *tiling.rule_grids()]
    if itself and (workload.columns, workload.rows) not in grids:
        grids += [*_between(workload.tiles), (workload.columns, workload.rows)]
    columns, rows = np.array(grids).T
    return replace(free, columns=columns, rows=rows)


def _between(tiles: int) -> list[tuple[int, int]]:
    """Nearly square grids (columns, rows) between those of the tile rule and a number of tiles, evenly spaced."""
    wanted = np.linspace(tiling.MAX_TILES, tiles, STEPS + 1)[1:-1].astype(int).tolist()
    found = dict.fromkeys((isqrt(count), count // isqrt(count)) for count in wanted)
    return [grid for grid in found if tiling.MAX_TILES < grid[0] * grid[1] < tiles]


def growing_contexts(workload: Workload) -> Workload:
    """Columns of a page at eight contexts, evenly spaced from the first multiple of 1024 tokens that holds its image: prompts that grow."""
    step = -(-workload.image_tokens // 1024) * 1024
    return replace(workload, prompt_tokens=step * np.arange(1, 9) - workload.image_tokens)


def growing_outputs(workload: Workload) -> Workload:
    """Columns of one page at growing output lengths, past its own as far as is allowed."""
    most = min(max(2048, 2 * workload.output_tokens), LIMITS["output_tokens"][1])
    return replace(workload, output_tokens=np.linspace(0, most, 17).astype(np.int64))
