"""What one step of a serving engine takes: running sequences that each yield a token, beside pages that are encoded and prefilled.

Times come from the same operators, lanes and efficiencies as those of one page (`Estimate.on`). They are found once for a device and a
kind of page, at some batch sizes, and read off between these in straight lines.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.served_passes import chunk_group, step_group
from ocr_flops.cost.stage_groups import StageGroup, group_stages
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.serving import ServingSpec
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.expected import CASES, expected_seconds

CONTEXTS = (1024, 8192)  # at which a decode step is timed; it is linear in the context, but for the shortest ones
DECODE_GRID, FORWARD_GRID = 3, 2  # numbers of sequences at which it is timed, and of tokens at which a pass with prompts is: in a doubling
DEVICE = (0, 1, 2, 1, 2)  # of figures of the device, by case: those of cutting pages are also against where these are in favour


class Page(NamedTuple):
    """A kind of request: its workload, and what share of all requests it is."""

    workload: Workload
    weight: float = 1.0


@dataclass(frozen=True)
class Deployment:
    """An engine on a device with the kinds of request that it gets.

    Args:
        hardware, host, efficiency: as of `Timing`.
        options: of the engine.
        pages: kinds of request.
        basis: what times rest on.
    """

    config: RunConfig
    hardware: HardwareSpec
    host: HostSpec
    efficiency: EfficiencySpec
    options: ServingSpec
    pages: tuple[Page, ...]
    basis: str


def _seconds(config: RunConfig, group: StageGroup, lanes: tuple) -> np.ndarray:
    """Expected seconds of a pass and of its device lane: [seconds or device, case, point]."""
    found = expected_seconds(group, config, *lanes)
    return np.stack([found.seconds, found.device])


def _matrix_share(config: RunConfig, group: StageGroup, lanes: tuple) -> np.ndarray:
    """How many times as long as the memory the matrix units take for a pass: [point]."""
    hardware, _, efficiency = lanes
    row = group.row(config, columns=("tensor_flops", "io_bytes"))
    computed = row["tensor_flops"] / (hardware.matrix_peak(config.dtype) * efficiency.matrix.value)
    return computed * hardware.memory_bandwidth_bytes_per_second * efficiency.bandwidth.value / row["io_bytes"]


def _grow(least: int, most: int, doubling: int) -> np.ndarray:
    """Whole numbers that double in so many steps, until the most is reached; those below it do not depend on it."""
    steps = np.arange(max(1, np.ceil(doubling * np.log2(most / least))) + 1)
    return np.unique((least * 2 ** (steps / doubling)).round().astype(np.int64))


@functools.lru_cache(maxsize=256)
def _decode_table(config: RunConfig, lanes: tuple, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers of sequences [grid]; of a step in which they run alone the seconds at no context, and what a token of it adds, as `as_lines`
    says [2, seconds or device, case, grid]; and its `_matrix_share` at the least of `CONTEXTS` [grid of several]."""
    grid = _grow(2, most, DECODE_GRID)
    single = _seconds(config, step_group(config, 1, np.array(CONTEXTS)), lanes)
    group = step_group(config, np.tile(grid, 2), np.repeat(CONTEXTS, len(grid)))
    several = _seconds(config, group, lanes).reshape(2, len(CASES), 2, -1)
    table = np.concatenate([single[..., None], several], axis=-1)
    table[0] += 1e-6 * np.array(lanes[1].step_us[:3])[:, None, None]
    low, high = table[:, DEVICE].transpose(2, 0, 1, 3)
    slope = (high - low) / (CONTEXTS[1] - CONTEXTS[0])
    grid = np.array([1, *grid], float)
    return grid, as_lines(grid, np.stack([low - slope * CONTEXTS[0], slope])), _matrix_share(config, group, lanes)[: len(grid) - 1]


@functools.lru_cache(maxsize=64)
def _chunks(config: RunConfig, most: int) -> StageGroup:
    """Passes over growing numbers of tokens, of one prompt each."""
    grid = _grow(16, most, FORWARD_GRID)
    return chunk_group(config, grid, image_tokens=grid)


def _prompts(config: RunConfig, prompt: int, most: int) -> StageGroup:
    """`_chunks` of prompts of one length: a token attends to its own prompt, so that several prompts in one pass are a chunk of all their
    tokens that attends to one prompt."""
    chunks = _chunks(config, most)
    return replace(chunks, values=chunks.values | {"context": np.minimum(chunks.values["tokens"], prompt)}, _sums={}, _last={})


@functools.lru_cache(maxsize=1024)
def _forward_table(config: RunConfig, lanes: tuple, prompt: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of tokens [grid] of prompts of one length, and of a pass over them the seconds of a step, those in which the device waits,
    and the device's, by case of `DEVICE`, as `as_lines` says [3, case, grid]."""
    group, between = _prompts(config, prompt, most), 1e-6 * np.array(lanes[1].step_us[:3])[:, None]
    seconds, device = _seconds(config, group, lanes)
    slack = np.maximum(seconds[list(DEVICE)] - device[list(DEVICE)], 0.0)  # between steps the device has nothing to do
    grid = group.values["tokens"].astype(float)
    return grid, as_lines(grid, np.array([(seconds + between)[list(DEVICE)], slack, device[list(DEVICE)]]))


@functools.lru_cache(maxsize=1024)
def _vision_seconds(config: RunConfig, lanes: tuple, views: tuple[int, int, int, int]) -> np.ndarray:
    """Seconds of encoding one page [seconds or device, case]."""
    (group,) = group_stages(config, Workload(*views), ("vision",))
    return _seconds(config, group, lanes)[..., 0]


def as_lines(grid: np.ndarray, table: np.ndarray) -> np.ndarray:
    """A table [..., case, grid] as `read_off` takes it: from each place of the grid on, what a line is at 0, and what it rises by."""
    rise = np.zeros_like(table)
    rise[..., :-1] = (table[..., 1:] - table[..., :-1]) / (grid[1:] - grid[:-1])
    return np.array([table - rise * grid, rise])


def read_off(places: np.ndarray, grid: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """A table, of `as_lines`, read off at places [..., case or 1, point] in straight lines, also beyond its ends: [..., case, point]."""
    here = grid[1:-1].searchsorted(places) + len(grid) * np.arange(lines.shape[-2])[:, None]
    value, rise = lines.reshape(*lines.shape[:-2], -1).take(here, axis=-1)
    value += rise * places
    return value


class StepTimes:
    """What a step takes on a device, by case of `DEVICE`: as expected, all figures in favour, all against."""

    def __init__(self, served: Deployment):
        config, options, pages = served.config, served.options, served.pages
        lanes = (served.hardware, served.host, served.efficiency)
        weights = np.array([page.weight for page in pages], float)
        self.weights = weights / weights.sum()
        self.prompt_tokens = np.array([page.workload.context_tokens for page in pages])
        self.output_tokens = np.array([page.workload.output_tokens for page in pages])
        self.mean_prompt = float(self.weights @ self.prompt_tokens)
        self.mixes = config.engine_code.mixes_prefill
        self._grid, self._decode, self._decode_share = _decode_table(config, lanes, options.max_num_seqs)
        most, prompt = options.max_num_batched_tokens + options.max_num_seqs, max(1, round(self.mean_prompt))
        self._tokens, self._forward = _forward_table(config, lanes, prompt, most)
        self._forward_share = lambda: _matrix_share(config, _prompts(config, prompt, most), lanes)
        views = [(one.global_px, one.tile_px, one.columns, one.rows) for one in (page.workload for page in pages)]
        self.vision_by_page = np.array([_vision_seconds(config, lanes, view) for view in views]).transpose(1, 2, 0)  # [lane, case, page]
        self.vision = self.vision_by_page[:, DEVICE] @ self.weights  # [lane, case]
        self.ban = 1e-6 * np.array(options.ban_us[:3])[list(DEVICE)] * options.ngram_ban

    @classmethod
    def stacked(cls, each: Sequence[StepTimes], cases: Sequence[int]) -> StepTimes:
        """Times of single kinds of page, under the same options, as one's: its cases are these of the first, then of the next, ..."""
        found = copy(each[0])
        for name, axis in {"vision": 1, "ban": 0, "_decode": -2, "_forward": -2}.items():
            setattr(found, name, np.concatenate([getattr(one, name).take(cases, axis) for one in each], axis))
        for name in ("prompt_tokens", "mean_prompt"):
            setattr(found, name, np.repeat([getattr(one, name) for one in each], len(cases)).reshape(-1, 1))
        return found

    def alone(self, sequences: np.ndarray, context: np.ndarray | float, lanes: int = 2) -> tuple[np.ndarray, np.ndarray]:
        """A step of running sequences alone, the n-gram ban left out, and what attention takes of it: [seconds or device, case, point].

        Args:
            sequences: how many run; where none does, a step takes no time: [case or 1, point].
            context: their mean context in tokens.
            lanes: 1 for the seconds of a step alone, 2 also for the device's.
        """
        base, slope = read_off(np.maximum(sequences, 1.0), self._grid, self._decode[:, :, :lanes])
        runs = np.minimum(sequences, 1.0)
        attention = slope * (context * runs)
        return base * runs + attention, attention

    def mixed(self, alone: np.ndarray, attention: np.ndarray, sequences: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """A step of running sequences that also prefills tokens; vision and the n-gram ban left out: [seconds or device, case, point].

        Weights are read once for both, and attention of the running sequences fills the time in which the device would wait for the host.
        SGLang prefills in a step of its own, after which the running sequences have theirs.

        Args:
            alone, attention, sequences: what `alone` found, and what for.
            tokens: prefilled: [case or 1, point].
        """
        forward = read_off(tokens + sequences * self.mixes, self._tokens, self._forward[:, : 1 + len(alone)])
        if not self.mixes:
            return alone + forward[::2]
        attention[0] = np.maximum(attention[0] - forward[1], 0.0)
        return np.maximum(forward[::2] + attention, alone)

    def binding(self, sequences: np.ndarray, tokens: np.ndarray, is_prefill: np.ndarray) -> np.ndarray:
        """Whether "matrix" units or "bandwidth" decide most of decode, or of prefill: [point].

        Args:
            sequences, tokens: of a step that prefills: [point].
            is_prefill: which of the two is asked for: [point].
        """
        share = np.interp(sequences, self._grid[1:], self._decode_share)
        if is_prefill.any():
            share = np.where(is_prefill, np.interp(tokens, self._tokens, self._forward_share()), share)
        return np.where(share > 1, "matrix", "bandwidth")

    def forward_seconds(self, most: int, case: int) -> tuple[list[float], list[float]]:
        """Seconds of a step that runs so many tokens, from none to most, without what reads the cache; and those of them in which the
        device waits for the host."""
        rows = np.arange(most + 1.0)[None]
        return tuple(read_off(rows, self._tokens, one)[case].tolist() for one in self._forward[:, :2].swapaxes(0, 1))
