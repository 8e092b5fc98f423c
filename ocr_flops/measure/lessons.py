"""Learns a model's program in the worker and keeps it: for a command, or because a model of one's own is used for the first time."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from ocr_flops.cost.models import learned
from ocr_flops.errors import SpecError
from ocr_flops.files import write_whole
from ocr_flops.measure.client import ask
from ocr_flops.measure.events import Learned, Progress, Traced
from ocr_flops.measure.protocol import Request
from ocr_flops.spec.specs import LearnedSpec, ModelSpec

Say = Callable[[str], None]
KERNELS = ("eager", "sdpa")


def lesson(spec: LearnedSpec, **rest: object) -> Request:
    """The request that learns a class, or (with `points`) traces it at points."""
    content = {"architecture": spec.architecture, "config": json.loads(spec.config), **rest}
    return Request({}, [], kind="learn", device="meta", lesson=content)


def learn_program(
    spec: LearnedSpec, kernels: Sequence[str] = KERNELS, python: str | None = None, say: Say = lambda text: None, **rest: object
) -> str:
    """The program of a class at some dimensions, as the text of its file.

    Args:
        spec: the class and its dimensions.
        kernels: attention kernels to learn, where the class has them.
        python: the interpreter that has torch and transformers, as for `converse`.
        say: told what is done.
        **rest: more of the lesson, see `worker.learning.learn_class`.

    Raises:
        SpecError: it cannot be learned; the message names the operator, or what the worker lacks.
    """

    def announce(step: Progress) -> None:
        say(f"learning {spec.architecture}: {step.text}")

    for event in ask(lesson(spec, kernels=list(kernels), **rest), python, progress=announce):
        if isinstance(event, Learned):
            return event.program
    raise SpecError(f"{spec.architecture}: the worker ended without a program")


def trace_points(spec: LearnedSpec, points: Sequence[dict], python: str | None = None, say: Say = lambda text: None) -> list[Traced]:
    """What a class does at points, traced afresh; arguments as of `learn_program`, points as of `worker.learning.trace_points`."""
    found = ask(lesson(spec, points=list(points)), python, progress=lambda step: say(step.text))
    return [event for event in found if isinstance(event, Traced)]


def learn_missing(model: ModelSpec, path: Path) -> None:
    """Learns a model whose program is not there yet, and says so on stderr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.is_file():
            return  # somebody else has learned it meanwhile
        print(f"{model.label}: learned from its class, this once (a few minutes); kept in {path}", file=sys.stderr)
        write_whole(path, learn_program(model.learned, say=lambda text: print(text, file=sys.stderr)).encode())


learned.on_missing.append(learn_missing)
