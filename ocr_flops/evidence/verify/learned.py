"""A learned model's numbers against fresh traces of its class, at sizes drawn at random: by module and stage, as integers."""

import random
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import polars as pl

from ocr_flops.cost.models.learned import find_program
from ocr_flops.cost.tape import TRAFFIC
from ocr_flops.evidence.verify.compare import difference_frame, pair_numbers
from ocr_flops.measure.events import Traced
from ocr_flops.measure.lessons import trace_points
from ocr_flops.spec.specs import CALL, STAGES, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate, estimate

PEAK, WEIGHTS = "peak_activation_bytes", "weight_io_bytes"
COLUMNS = ("tensor_flops", "vector_flops", "operators", *TRAFFIC, PEAK)
SIDES_PX = (180, 1400)  # of random pages: costs are polynomials, so that small pages, soon traced, tell as much as large ones


def random_workloads(model: ModelSpec, count: int, seed: int = 0) -> list[Workload]:
    """Points for a model, of one page and of several in turn."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        pages = chance.randint(2, 4) if number % 3 == 2 and getattr(model.learned.page_rule, "several_pages", False) else 1
        width, height = (chance.randint(*SIDES_PX) for _ in range(2))
        rest = {"prompt_tokens": chance.randint(5, 200), "output_tokens": 1, "batch_size": 1 if number % 2 == 0 else chance.randint(2, 4)}
        found.append(Workload(0, image_width_px=width, image_height_px=height, pages=pages, page_rule=model.learned.page_rule, **rest))
    return found


def verify_learned(
    model: ModelSpec,
    workloads: Sequence[Workload],
    kernels: Sequence[str] = (),
    stages: Sequence[str] = (*STAGES, CALL),
    python: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> pl.DataFrame:
    """Every number of a model's modules and stages beside what a fresh trace of its class has.

    The experts of a grouped product are charged as hit; a kernel is handed all of them, so they are left out on both sides.

    Args:
        model: a learned one.
        workloads: single points; of decode one step is traced.
        kernels: attention kernels, all that were learned by default.
        stages: those wanted.
        python, say: as of `measure.lessons.trace_points`.

    Returns:
        stage, attention, image_width_px, image_height_px, prompt_tokens, batch_size, module ("total" for the stage), column, measured,
        analytic, difference.
    """
    program = find_program(model)
    kernels = kernels or tuple(dict.fromkeys(stage.attention for stage in program.stages))
    cases = [(kernel, workload, stage) for kernel in kernels for workload in workloads for stage in stages]
    points = [_point(*case, bool(program.window)) for case in cases]
    rows: list[tuple[Any, ...]] = []
    for (kernel, workload, stage), traced in zip(cases, trace_points(model.learned, points, python, say), strict=True):
        whole = estimate(model, workload, kernel, experts_hit=dict.fromkeys((*STAGES, CALL), 0) if program.experts else None)
        numbers = whole.together if stage == CALL else whole
        place = stage, kernel, workload.image_width_px, workload.image_height_px, workload.prompt_tokens, workload.batch_size
        rows += [(*place, *row) for row in _compare(stage, numbers, traced)]
    point = "image_width_px", "image_height_px", "prompt_tokens", "batch_size"
    return difference_frame(rows, "stage", "attention", *point, "module", "column", "measured", "analytic")


def _point(kernel: str, workload: Workload, stage: str, windowed: bool) -> dict[str, Any]:
    """A point as the worker wants it, of decode the first step."""
    sizes = {} if stage == "decode" else {name: int(value) for name, value in workload.page_sizes.items()}
    tokens = 0 if stage == "vision" else workload.context_tokens + (stage == "decode" and not windowed)
    return {"stage": stage, "attention": kernel, "batch": workload.batch_size, "sizes": sizes, "context": tokens}


def _compare(stage: str, numbers: Estimate, traced: Traced) -> list[tuple[str, str, int, int]]:
    """Module, column, measured and analytic of a stage, then of its total."""
    expected = {module: row for (of, module), row in numbers.module_numbers.items() if of == stage}
    measured = {module: row | {WEIGHTS: row[WEIGHTS] - row["expert_bytes"]} for module, row in traced.modules.items()}
    rows = [*pair_numbers(measured, expected, COLUMNS)]
    for column in COLUMNS:
        values = [row[column] for row in measured.values()]
        rows.append(("total", column, max(values) if column == PEAK else sum(values), numbers.stage_numbers[stage][column]))
    return rows


def describe_versions(model: ModelSpec) -> str:
    """What a program was learned from, and whether something else is installed here."""
    program = find_program(model)
    text = f"{program.architecture}, learned from transformers {program.transformers} and torch {program.torch}"
    try:
        here = version("transformers")
    except PackageNotFoundError:
        return text
    return text if here == program.transformers else f"{text}; installed here is transformers {here}, whose class may differ"
