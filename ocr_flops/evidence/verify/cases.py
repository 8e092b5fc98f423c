"""Which points are run on the real model, under which settings: the default set, or one point as chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ocr_flops.errors import SpecError
from ocr_flops.measure.client import ask
from ocr_flops.measure.events import Result
from ocr_flops.measure.plan import TOWERS, TRANSFORMERS, ModelSource, build_request
from ocr_flops.measure.protocol import REMOTE_ATTENTION, Request
from ocr_flops.spec.specs import STAGES, AttentionSpec, ModelSpec
from ocr_flops.spec.tiling import rule_grids
from ocr_flops.spec.workload import Workload

if TYPE_CHECKING:
    from ocr_flops.spec.run_spec import RunSpec

REMOTE_TRACES = ((1, 10, "bf16"), (3, 100, "fp32"))  # batch size, prompt tokens, dtype


class Case(NamedTuple):
    """Points that one worker runs under one setting."""

    kind: str
    attention: str | AttentionSpec
    prefill_logits: str
    workloads: tuple[Workload, ...]
    dtype: str = "bf16"
    decode_steps: int = 3


def suite(quick: bool = False, engine: str = "transformers") -> list[Case]:
    """What `verify` runs by default: counted, the six modes, all 22 vendor grids, two beyond (4 x 5, 10 x 10), batch 1 and 2, eager and
    sdpa, all and the last logits, three decode steps; and a selection of them traced. `quick` keeps a handful of each.

    Engine remote_code has one attention mode for each tower, and computes all logits.
    """
    from ocr_flops.spec.catalog import modes

    def points(batch_size: int, prompt_tokens: int) -> list[Workload]:
        rest = {"batch_size": batch_size, "prompt_tokens": prompt_tokens, "output_tokens": 3}
        single = [Workload.from_grid(1, 1, mode, **rest) for mode in modes()]
        grids = [Workload.from_grid(columns, rows, "gundam", **rest) for columns, rows in (*rule_grids(), (4, 5), (10, 10))]
        return [*single, *grids, Workload.from_grid(2, 3, "gundam_m", **rest)]

    few = slice(None, None, 9) if quick else slice(None)
    some = slice(None, None, 15) if quick else slice(None, None, 4)
    if engine == "remote_code":
        vendor = AttentionSpec("vendor", REMOTE_ATTENTION)
        return [
            *(Case("count", vendor, "all", tuple(points(batch, prompt)[few])) for batch, prompt in ((1, 10), (2, 37))),
            *(Case("trace", vendor, "all", tuple(points(batch, prompt)[some]), dtype, 2) for batch, prompt, dtype in REMOTE_TRACES),
        ]
    return [
        *(
            Case("count", attention, logits, tuple(points(batch, prompt)[few]))
            for attention, logits, batch, prompt in (
                ("eager", "last", 1, 10),
                ("eager", "all", 2, 37),
                ("sdpa", "all", 1, 10),
                ("sdpa", "last", 2, 64),
            )
        ),
        *(
            Case("trace", attention, logits, tuple(points(batch, prompt)[some]), dtype, 2)
            for attention, logits, batch, prompt, dtype in (
                ("eager", "last", 1, 10, "bf16"),
                ("eager", "all", 4, 100, "bf16"),
                ("sdpa", "all", 1, 2000, "bf16"),
                ("sdpa", "last", 3, 10, "fp32"),
            )
        ),
    ]


def point_cases(run: RunSpec, kinds: Sequence[str] = ("count", "trace"), decode_steps: int = 3) -> list[Case]:
    """One point as a command line chose it.

    Args:
        run: from `load_run`.
        kinds: "count", "trace" or both.
        decode_steps: steps run at most.

    Raises:
        SpecError: a choice that the real model cannot be run with here.
    """
    if run.cache != "dynamic":
        raise SpecError(f"cache: {run.cache!r} cannot be run here; verify runs dynamic")
    if run.hardware is not None:
        raise SpecError(f"hardware: {run.hardware.name!r} has no part in verify, which compares FLOPs and bytes; leave it out")
    attention = run.attention.resolved(run.model, run.engine)
    for tower in TOWERS:
        kernel, runnable = attention.kernel(tower), run.engine.runnable_kernels(tower)
        if kernel not in runnable:
            raise SpecError(f"attention.{tower}: {kernel!r} cannot be run here; choose from {', '.join(runnable)}")
    return [Case(kind, attention, run.prefill_logits, (run.workload,), run.dtype, decode_steps) for kind in kinds]


def asked(
    model: ModelSpec, case: Case, device: str = "meta", stages: Sequence[str] = STAGES, source: ModelSource = TRANSFORMERS
) -> Request:
    """What a case asks of the worker (arguments as in `run`).

    Raises:
        SpecError: the engine cannot run it.
    """
    return build_request(
        model,
        case.workloads,
        device=device,
        attention=case.attention,
        dtype=case.dtype,
        prefill_logits=case.prefill_logits,
        decode_steps=1 if case.kind == "trace" and device != "meta" else case.decode_steps,
        stages=stages,
        kind=case.kind,
        **source._asdict(),
    )


def run(
    model: ModelSpec,
    cases: Iterable[Case],
    *,
    device: str = "meta",
    stages: Sequence[str] = STAGES,
    python: str | None = None,
    source: ModelSource = TRANSFORMERS,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[Case, Result]]:
    """Runs cases on the real model and yields every result. A trace with data runs one decode step: each hits experts of its own.

    Args:
        model: dimensions.
        cases: from `suite`, or others.
        device, stages: as in `build_request`.
        python: the interpreter that has torch and transformers, as for `converse`.
        source: the code and weights that run.
        progress: called with a line of text before each stage.

    Raises:
        SpecError: the worker failed; the message says why and what to do.
    """
    for case in cases:
        name = case.attention if isinstance(case.attention, str) else case.attention.name
        setting = f"{case.kind} {name} {case.prefill_logits} logits, batch {case.workloads[0].batch_size}"
        request = asked(model, case, device, stages, source)
        for result in ask(request, python, progress=lambda step, setting=setting: progress(f"{setting}: {step.text}")):
            yield case, result
