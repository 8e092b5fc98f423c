"""The file of a learned program: JSON, its layers folded, its polynomials in a table, read without torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from ocr_flops.cost.learning.dimensions import DerivedSize
from ocr_flops.cost.polynomial import Dim, Dimension
from ocr_flops.errors import SpecError

SCHEMA = 1


class LearnedOperator(msgspec.Struct, array_like=True, gc=False):
    """One operator of a stage; numbers of polynomials are places in the stage's table.

    Args:
        module, name: places in the file's texts.
        layers: that it is charged to; empty outside layers.
        runs_in: layers that execute it; empty outside layers.
        itemsize: bytes per element of a matrix product's inputs, 0 where it is none.
        costs: numbers of the polynomials of tensor FLOPs, vector FLOPs, and bytes of weights, activations and cache, of one layer, over
            all repeats.
        live: that of the bytes alive; several where the largest of them counts, over layers or repeats.
        thirds: of every expert hit that it reads.
        loop: number of the loop around it, -1 for none.
        once: polynomials of tensor FLOPs, vector FLOPs and bytes of the first repeat, where it is in a loop.
    """

    module: int
    name: int
    layers: list[int]
    runs_in: list[int]
    itemsize: int
    costs: tuple[int, int, int, int, int]
    live: int | list[int]
    thirds: int = 0
    loop: int = -1
    once: tuple[int, int, int] | None = None


class Evidence(msgspec.Struct):
    """At which sizes a stage was learned, and at which it was found equal afterwards."""

    learned_at: list[dict[str, int]]
    verified_at: list[dict[str, int]]


class LearnedStage(msgspec.Struct):
    """A stage of a model with one attention kernel.

    Args:
        stage: "vision", "prefill", "call" or "decode".
        attention: the kernel of all towers.
        is_one: whether for a single page.
        variant: that of the page rule, where vision takes part.
        monomials: what polynomials are made of.
        polynomials: each as pairs of a monomial's place and its coefficient.
        operators: in execution order.
        loops: numbers of the polynomials that say how often each loop runs.
        evidence: where this is known from.
    """

    stage: str
    attention: str
    is_one: bool
    variant: list[int]
    monomials: list[list[str]]
    polynomials: list[list[tuple[int, int]]]
    operators: list[LearnedOperator]
    loops: list[int]
    evidence: Evidence

    def dims(self) -> list[Dim]:
        """The polynomials."""
        names = [tuple(sorted(monomial)) for monomial in self.monomials]
        found: list[Dim] = []
        for terms in self.polynomials:
            values = {names[place]: value for place, value in terms}
            found.append(values[()] if set(values) == {()} else Dimension.of_terms(values) if values else 0)
        return found


class LearnedExperts(msgspec.Struct, frozen=True):
    """Routed experts of a decoder: how many a layer, how many a token visits, layers that have them, bytes of one matrix."""

    experts: int
    experts_per_token: int
    layers: int
    third: int

    @property
    def sparse_layers(self) -> int:
        """As of `DecoderSpec`."""
        return self.layers


class LearnedProgram(msgspec.Struct):
    """What was learned of a class at some dimensions.

    Args:
        schema: of this file.
        architecture: the class, of transformers.
        transformers, torch: their versions.
        config: as it was given to the class.
        texts: module labels and operator names.
        parts: derived quantities.
        parameters: by module and layer (-1 outside layers).
        kv_bytes_per_token: of the cache, in all layers.
        experts: None for a dense decoder.
        stages: what there is.
        window: output tokens, the newest, that decode attends to and keeps beside the prompt; 0 for all.
        left_out: attention kernels that could not be learned, each with the reason.
    """

    schema: int
    architecture: str
    transformers: str
    torch: str
    config: dict[str, Any]
    dtype: str
    texts: list[str]
    parts: dict[str, DerivedSize]
    parameters: list[tuple[int, int, int]]
    kv_bytes_per_token: int
    experts: LearnedExperts | None
    stages: list[LearnedStage]
    window: int = 0
    left_out: dict[str, str] = {}


# Made once, while no other thread is about: msgspec 0.22 can end the process where several threads are the first to read a type.
_DECODER = msgspec.json.Decoder(LearnedProgram)


@cache
def read_program(path: Path) -> LearnedProgram:
    """A program file.

    Raises:
        SpecError: it is not there, damaged, or of another version of this package; the file is named.
    """
    try:
        program = _DECODER.decode(path.read_bytes())
    except FileNotFoundError:
        raise SpecError(f"program: {path} is not there; `ocr-flops learn` makes it") from None
    except msgspec.DecodeError as error:
        raise SpecError(f"program: {path} is damaged ({error}); `ocr-flops learn` makes it anew") from None
    if program.schema != SCHEMA:
        raise SpecError(f"program: {path} has schema {program.schema}, not {SCHEMA}; `ocr-flops learn` makes it anew")
    return program


def write_program(program: LearnedProgram) -> str:
    """A program as JSON, a stage a line."""
    head = msgspec.to_builtins(program)
    stages = head.pop("stages")
    text = msgspec.json.encode(head).decode()[:-1]
    lines = ",\n".join(msgspec.json.encode(stage).decode() for stage in stages)
    return f'{text},\n"stages": [\n{lines}\n]}}\n'
