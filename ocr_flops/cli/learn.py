"""The command `ocr-flops learn`: a class of transformers becomes a program that estimates need no torch for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Python, known_names
from ocr_flops.errors import SpecError

if TYPE_CHECKING:
    from ocr_flops.spec.specs import ModelSpec


def learn_model(
    model: Annotated[
        str, typer.Argument(metavar="CLASS|NAME|FOLDER", help="A class of transformers, a model of ocr-flops list, or a folder.")
    ],
    config: Annotated[
        str, typer.Option("--config", metavar="FILE|NAME", help="Of a class: its config.json, or the model whose dimensions it has.")
    ] = "",
    attention: Annotated[str, typer.Option(metavar="KERNEL,...", help="Kernels to learn, where the class has them.")] = "",
    python: Python = None,
    record: Annotated[bool, typer.Option("--record", help="Of DeepSeek-OCR: keep the comparison as evidence that the app shows.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where the program goes (default: the user's cache).")] = None,
) -> int:
    """Learn what a class of transformers computes and moves, from traces on the meta device (a few minutes); exits 2 where it cannot.

    DeepSeek-OCR, whose program is written by hand, is learned beside it, and every column is compared; exits 1 on any difference.
    """
    from ocr_flops.cost.learning.program_file import read_program
    from ocr_flops.cost.models.learned import kept_path
    from ocr_flops.files import write_whole
    from ocr_flops.measure import lessons

    spec = _find_model(model, config)
    chosen = known_names("--attention", attention, lessons.KERNELS)
    if spec.learned is None:
        return _learn_beside(spec, chosen, python, record)
    with console.show_progress() as progress:
        text = lessons.learn_program(spec.learned, chosen, python, progress)
    path = out or kept_path(spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
    program = read_program(path)
    points = [len(stage.evidence.learned_at) + len(stage.evidence.verified_at) for stage in program.stages]
    checked = sum(len(stage.evidence.verified_at) for stage in program.stages)
    print(f"{program.architecture} (transformers {program.transformers}, torch {program.torch}), {program.dtype}")
    print(f"{len(program.stages)} stages from {sum(points)} traces, {checked} of them checks: every number equal, as integers")
    print(path)
    return 0


def _learn_beside(spec: ModelSpec, kernels: Sequence[str], python: str | None, record: bool) -> int:
    """Learns the class of a model that is written by hand, and compares; 1 on any difference."""
    from ocr_flops.evidence.verify import by_hand

    with console.show_progress() as progress:
        program = by_hand.learn_by_traces(spec, by_hand.mode_views(), kernels, python, progress)
    frame = by_hand.compare_by_hand(spec, program)
    wrong = frame.filter(frame["difference"] != 0)
    if record:
        by_hand.record_comparison(frame, program)
    for row in wrong.head(20).iter_rows(named=True):
        print(f"differs: {row}")
    verdict = f"{wrong.height:,} differ" if wrong.height else "all equal, as integers"
    print(f"{spec.label} learned from transformers {program.transformers} beside {spec.label} by hand: {frame.height:,} numbers, {verdict}")
    return 1 if wrong.height else 0


def _find_model(name: str, config: str) -> ModelSpec:
    """The model that is meant: of the group `model`, of a folder, or a class at the dimensions of a file or of a model."""
    from ocr_flops.spec.catalog import load_model
    from ocr_flops.spec.own_models import NO_DIMENSIONS
    from ocr_flops.spec.reading import names
    from ocr_flops.spec.specs import LearnedSpec, ModelSpec
    from ocr_flops.spec.towers import LEARNED_TOWERS

    if name in names("model") or "/" in name or name.startswith("."):
        return load_model(name)
    if config in names("model"):
        found = load_model(config).learned
        if found is None:
            raise SpecError(f"--config: {config} is written by hand; give the class's own config.json")
        given = json.loads(found.config)
    elif config:
        try:
            given = json.loads(Path(config).read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise SpecError(f"--config: {config} is no JSON file that can be read ({problem})") from None
    else:
        given = {}
    own = {key: value for key, value in given.items() if key not in NO_DIMENSIONS}
    return ModelSpec(name, name, LEARNED_TOWERS, "learned", LearnedSpec(name, None, json.dumps(own, sort_keys=True), config or "defaults"))
