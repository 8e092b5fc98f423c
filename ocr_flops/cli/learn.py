"""The command `ocr-flops learn`: a class of transformers becomes a program that estimates need no torch for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Python, known_names
from ocr_flops.errors import SpecError


def learn_model(
    model: Annotated[
        str, typer.Argument(metavar="CLASS|NAME|FOLDER", help="A class of transformers, a model of ocr-flops list, or a folder.")
    ],
    config: Annotated[
        str, typer.Option("--config", metavar="FILE|NAME", help="Of a class: its config.json, or the model whose dimensions it has.")
    ] = "",
    attention: Annotated[str, typer.Option(metavar="KERNEL,...", help="Kernels to learn, where the class has them.")] = "",
    python: Python = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where the program goes (default: the user's cache).")] = None,
) -> int:
    """Learn what a class of transformers computes and moves, from traces on the meta device (a few minutes); exits 2 where it cannot."""
    from ocr_flops.cost.learning.program_file import read_program
    from ocr_flops.cost.models.learned import kept_path
    from ocr_flops.files import write_whole
    from ocr_flops.measure import lessons

    spec = _find_model(model, config)
    chosen = known_names("--attention", attention, lessons.KERNELS)
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


def _find_model(name: str, config: str):
    """The model that is meant: of the group `model`, of a folder, or a class at the dimensions of a file or of a model."""
    from ocr_flops.spec.catalog import load_model
    from ocr_flops.spec.own_models import NO_DIMENSIONS
    from ocr_flops.spec.reading import names
    from ocr_flops.spec.specs import LearnedSpec, ModelSpec
    from ocr_flops.spec.towers import LEARNED_TOWERS

    if name in names("model") or "/" in name or name.startswith("."):
        spec = load_model(name)
        if spec.learned is None:
            raise SpecError(f"model.{name}: its program is written by hand; there is nothing to learn")
        return spec
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
