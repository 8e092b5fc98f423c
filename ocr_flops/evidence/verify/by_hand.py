"""DeepSeek-OCR learned from traces of its class against DeepSeek-OCR by hand: every column of every module, as integers."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from ocr_flops.cost.learning.dimensions import with_parts
from ocr_flops.cost.learning.program_file import LearnedProgram, LearnedStage
from ocr_flops.cost.models.learned import operations_of
from ocr_flops.cost.program import Program
from ocr_flops.cost.stage_groups import COLUMNS, StageGroup, group_stages
from ocr_flops.cost.tape import Tape
from ocr_flops.evidence.verify.compare import difference_frame, pair_numbers
from ocr_flops.files import write_whole
from ocr_flops.measure.lessons import learn_program
from ocr_flops.measure.plan import tower_dimensions
from ocr_flops.spec.catalog import modes
from ocr_flops.spec.specs import CALL, STAGES, LearnedSpec, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import estimate

CLASS = "UnlimitedOcrForConditionalGeneration"
DATA = Path(__file__).parent / "data" / "by_hand.json"
COMPARED = tuple(column for column in COLUMNS if column != "weight_bytes")  # of which parameters are compared instead


def learn_by_traces(
    model: ModelSpec, views: Sequence[tuple[int, int]], kernels: Sequence[str], python: str | None = None, say: Callable = lambda text: None
) -> LearnedProgram:
    """The program of DeepSeek-OCR's class at a model's dimensions; arguments as of `measure.lessons.learn_program`.

    Args:
        model: one whose program is written by hand.
        views: sides of the global view and of the tiles (0 for none) in pixels.
    """
    spec = LearnedSpec(CLASS, None, json.dumps({"towers": tower_dimensions(model)}), "")
    return msgspec.json.decode(learn_program(spec, kernels, python, say, views=[list(view) for view in views]), type=LearnedProgram)


def compare_by_hand(model: ModelSpec, program: LearnedProgram, points: int = 3, seed: int = 0) -> pl.DataFrame:
    """Every number of a learned program beside that of the tape, at random grids, batches and lengths.

    Returns:
        stage, attention, global_px, tile_px, columns, rows, batch_size, module ("total" for the stage, "model" for parameters and cache),
        column, learned, by_hand, difference.
    """
    rows: list[tuple[Any, ...]] = []
    chance = random.Random(seed)
    for stage in program.stages:
        for _ in range(points):
            rows += _compare_stage(model, program, stage, _random_workload(stage, chance))
    config = estimate(model, Workload(1024)).config
    learned: Counter[str] = Counter()
    for module, _, count in program.parameters:
        learned[program.texts[module]] += count
    place = ("model", "", 0, 0, 1, 1, 1)
    rows += [(*place, name, "parameters", learned[name], config.parameters.get(name, 0)) for name in {*learned, *config.parameters}]
    rows.append((*place, "model", "kv_bytes_per_token", program.kv_bytes_per_token, config.kv_bytes_per_token))
    point = "global_px", "tile_px", "columns", "rows", "batch_size"
    return difference_frame(rows, "stage", "attention", *point, "module", "column", "learned", "by_hand")


def _random_workload(stage: LearnedStage, chance: random.Random) -> Workload:
    """A point that a stage was learned for: any, where vision takes no part."""
    view, tile, several = stage.variant or (1024, 640, 1)
    columns = chance.randint(2, 6) if several else 1
    rows = chance.randint(1 if several else 2, 6) if tile else 1
    batch = 1 if stage.is_one else chance.randint(2, 9)
    lengths = {"prompt_tokens": chance.randint(0, 3000), "output_tokens": chance.randint(1, 500)}
    return Workload(view, tile, columns if tile else 1, rows, batch_size=batch, **lengths)


def _compare_stage(model: ModelSpec, program: LearnedProgram, stage: LearnedStage, workload: Workload) -> list[tuple[Any, ...]]:
    whole = estimate(model, workload, stage.attention)
    (by_hand,) = group_stages(whole.config, workload, [stage.stage])
    tape = Tape(whole.config.itemsize)
    tape.operations += operations_of(program, stage)
    sizes = {"batch": workload.batch_size, "tiles": workload.tiles, "tile_rows": workload.rows, "tile_columns": workload.columns}
    sizes |= {"image_features": workload.image_tokens, "tokens": workload.context_tokens, "context": by_hand.values.get("context", 0)}
    sizes |= {name: value for name, value in by_hand.values.items() if name.startswith("expert")}
    values = with_parts(sizes, program.parts)
    learned = StageGroup(stage.stage, Program(tape), workload, values, None, by_hand.sizes, by_hand.steps, by_hand.context_sum)
    place = stage.stage, stage.attention, workload.global_px, workload.tile_px, workload.columns, workload.rows, workload.batch_size
    tables = ({module: one.row(whole.config, module, COMPARED) for module in (None, *one.program.modules)} for one in (learned, by_hand))
    return [(*place, module or "total", *rest) for module, *rest in pair_numbers(*tables, COMPARED)]


def record_comparison(frame: pl.DataFrame, program: LearnedProgram) -> None:
    """Keeps what was compared as the evidence that pages show."""
    summary = {
        "date": date.today().isoformat(),
        "class": program.architecture,
        "transformers": program.transformers,
        "torch": program.torch,
        "attention": sorted({stage.attention for stage in program.stages}),
        "views": sorted({tuple(stage.variant[:2]) for stage in program.stages if stage.variant}),
        "pages": [
            words for words, is_one in (("one page", True), ("several pages", False)) if is_one in {s.is_one for s in program.stages}
        ],
        "stages": [stage for stage in (*STAGES, CALL) if stage in frame["stage"].unique()],
        "traces": sum(len(stage.evidence.learned_at) + len(stage.evidence.verified_at) for stage in program.stages),
        "compared": frame.height,
        "different": frame.filter(pl.col("difference") != 0).height,
    }
    write_whole(DATA, json.dumps(summary, indent=1) + "\n")


def describe_comparison() -> str:
    """What was compared, in a sentence; "" where nothing was."""
    if not DATA.is_file():
        return ""
    summary = json.loads(DATA.read_text(encoding="utf-8"))
    verdict = "all equal, as integers" if not summary["different"] else f"{summary['different']:,} differ"
    views = ", ".join(f"{view} px" + (f" with tiles of {tile} px" if tile else "") for view, tile in summary["views"])
    settings = "; ".join(", ".join(summary[name]) for name in ("attention", "pages", "stages"))
    return (
        f"Learned from {summary['traces']:,} traces of transformers' class and written by hand, DeepSeek-OCR has the same columns: "
        f"{summary['compared']:,} numbers compared ({settings}; views of {views}), {verdict}."
    )


def mode_views() -> list[tuple[int, int]]:
    """The views of all resolution modes, those with tiles also without them."""
    return sorted({(mode.global_px, tile) for mode in modes() for tile in {0, mode.tile_px}})
