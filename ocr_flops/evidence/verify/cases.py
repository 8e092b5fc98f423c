"""Which points are run on the real model, under which settings: the default set, or one point as a command line has it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ocr_flops.errors import SpecError
from ocr_flops.measure.client import ask
from ocr_flops.measure.events import Result
from ocr_flops.measure.plan import DECODE_STEPS, TOWERS, TRANSFORMERS, ModelSource, build_request
from ocr_flops.measure.protocol import REMOTE_ATTENTION, Request
from ocr_flops.spec.catalog import load_attention, modes
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import STAGES, AttentionSpec, ModelSpec
from ocr_flops.spec.tiling import rule_grids
from ocr_flops.spec.workload import Workload

SETTINGS = {  # of each engine: attention, logits, dtype, batch size, prompt tokens, and which of the points (every so many)
    "transformers": (
        ("eager", "last", "bf16", 1, 10, 1),
        ("sdpa", "last", "bf16", 3, 10, 1),
        ("eager", "all", "bf16", 4, 100, 10),
        ("sdpa", "all", "bf16", 1, 2000, 10),
        # the integers depend on a precision by its bytes alone, and on the kernel that sdpa is in fp32
        *(
            (attention, logits, dtype, batch_size, prompt_tokens, 16)
            for dtype, batch_size, prompt_tokens in (("fp16", 1, 100), ("fp32", 3, 10))
            for attention in ("eager", "sdpa")
            for logits in ("last", "all")
        ),
    ),
    "remote_code": (
        ("vendor", "all", "bf16", 1, 10, 1),
        ("vendor", "all", "fp16", 4, 10, 10),
        ("vendor", "all", "fp32", 3, 100, 10),
    ),
}


class Case(NamedTuple):
    """Points that one worker runs under one setting.

    Args:
        kind: "count" (FLOPs alone), or "trace" (every operator, and FLOPs counted in the same pass).
        attention: the kernel of every tower.
        prefill_logits, dtype: as in `estimate`.
        workloads: single points, of one batch size.
        decode_steps: steps run at most. A trace with data runs one: each step hits experts of its own.
    """

    kind: str
    attention: AttentionSpec
    prefill_logits: str
    workloads: tuple[Workload, ...]
    dtype: str = "bf16"
    decode_steps: int = DECODE_STEPS

    @property
    def label(self) -> str:
        """The setting in words."""
        return f"{self.kind} {self.attention.name} {self.dtype} {self.prefill_logits} logits, batch {self.workloads[0].batch_size}"

    def request(
        self, model: ModelSpec, device: str = "meta", stages: Sequence[str] = STAGES, source: ModelSource = TRANSFORMERS
    ) -> Request:
        """Build the request that runs the case (arguments as in `run_cases`); a SpecError where the engine cannot run it."""
        return build_request(
            model,
            self.workloads,
            device=device,
            attention=self.attention,
            dtype=self.dtype,
            prefill_logits=self.prefill_logits,
            decode_steps=1 if self.kind == "trace" and device != "meta" else self.decode_steps,
            stages=stages,
            kind=self.kind,
            **source._asdict(),
        )


def default_cases(quick: bool = False, engine: str = "transformers", kind: str = "trace") -> list[Case]:
    """Return the cases that `verify` runs by default.

    The engine's `SETTINGS`: bf16 with its usual logits at the six modes, all 22 grids of the tile rule and two beyond (4 x 5, 10 x 10),
    others at some of these; three decode steps. `quick` keeps a handful of the points. Engine remote_code has one
    attention kernel for each tower, and computes all logits.
    """
    own = {"vendor": AttentionSpec("vendor", REMOTE_ATTENTION)}
    return [
        Case(kind, own.get(name) or load_attention(name), logits, _points(batch_size, prompt_tokens)[::every][:: 9 if quick else 1], dtype)
        for name, logits, dtype, batch_size, prompt_tokens, every in SETTINGS[engine]
    ]


def _points(batch_size: int, prompt_tokens: int) -> tuple[Workload, ...]:
    """Every mode without tiles, every grid of the tile rule and two beyond, and one of Gundam-M."""
    rest = {"batch_size": batch_size, "prompt_tokens": prompt_tokens, "output_tokens": DECODE_STEPS}
    single = (Workload.from_grid(1, 1, mode, **rest) for mode in modes())
    grids = (Workload.from_grid(columns, rows, "gundam", **rest) for columns, rows in (*rule_grids(), (4, 5), (10, 10)))
    return (*single, *grids, Workload.from_grid(2, 3, "gundam_m", **rest))


def point_case(run: RunSpec, kind: str = "trace", decode_steps: int = DECODE_STEPS) -> Case:
    """Return the case of one point as a command line has it.

    Args:
        run: from `load_run`.
        kind: "count" or "trace".
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
    return Case(kind, attention, run.prefill_logits, (run.workload,), run.dtype, decode_steps)


def run_cases(
    model: ModelSpec,
    cases: Iterable[Case],
    *,
    device: str = "meta",
    stages: Sequence[str] = STAGES,
    python: str | None = None,
    source: ModelSource = TRANSFORMERS,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[tuple[Case, Result]]:
    """Run cases on the real model and yield every result.

    Args:
        cases: of `default_cases`, or others.
        device, stages: as in `build_request`.
        python: the interpreter that has torch and transformers, as for `converse`.
        source: the code and weights that run.
        progress: called with a line of text before each stage.

    Raises:
        SpecError: the worker failed; the message says why and what to do.
    """
    for case in cases:
        request = case.request(model, device, stages, source)
        for result in ask(request, python, progress=lambda step, label=case.label: progress(f"{label}: {step.text}")):
            yield case, result
