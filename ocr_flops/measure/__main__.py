"""The worker: `python -m ocr_flops.measure` reads one request from stdin and writes messages to stdout, one JSON object a line."""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

from ocr_flops.measure.protocol import Request


def main() -> int:
    """Serves one request; returns the exit code."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not between the messages

    def send(**message: Any) -> None:
        messages.write(json.dumps(message) + "\n")

    try:
        request = Request.from_json(sys.stdin.readline())
        _serve(request, send)
    except Exception as problem:  # the other side shows every failure to a person
        message = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        send(event="error", message=message, advice=_advice(problem))
        return 1
    send(event="done")
    return 0


def _serve(request: Request, send: Any) -> None:
    steps = sum(_steps(request, workload) for workload in request.workloads)
    send(event="progress", done=0, total=steps + 1, text="loading torch and transformers")
    gc.disable()  # importing makes objects, not garbage: half a second less
    import torch
    import transformers

    from ocr_flops.measure.inputs import Point
    from ocr_flops.measure.model import build, parameter_count, resolved_device
    from ocr_flops.measure.run import Session

    gc.enable()

    if request.engine != "transformers":
        raise ValueError(f"engine: {request.engine!r} cannot be run here; only transformers can")
    transformers.logging.set_verbosity_error()
    device = resolved_device(request.device)
    experts = "grouped_mm" if request.kind == "trace" else "batched_mm" if device == "meta" else "eager"
    model = build(request.towers, request.attention, request.dtype, device, experts)
    modes = dict.fromkeys(request.attention.values())
    ran = {
        "engine": "transformers",
        "attention": request.attention,
        "dtype": request.dtype,
        "device": device,
        "experts": experts,
        "prefill_logits": request.prefill_logits,
        "kind": request.kind,
        "weights": "random",
        "parameters": parameter_count(model),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "label": f"transformers, UnlimitedOcr class, random weights, {'/'.join(modes)}, {device}",
    }
    session = Session(
        model,
        request.towers,
        dtype=request.dtype,
        device=device,
        prefill_logits=request.prefill_logits,
        image=request.image,
        stages=request.stages,
        kind=request.kind,
    )
    done = 1
    for number, workload in enumerate(request.workloads):

        def progress(text: str, number: int = number, workload: dict = workload) -> None:
            nonlocal done
            grid = f"{workload['columns']} x {workload['rows']}"
            send(event="progress", done=done, total=steps + 1, text=f"{text}, grid {grid} (point {number + 1} of {len(request.workloads)})")
            done += 1

        stages = session.run(Point(**workload), progress)
        send(event="result", point=number, workload=workload, ran=ran, stages=stages)


def _steps(request: Request, workload: dict[str, int]) -> int:
    """Progress calls of a point: one a stage, one a decode step."""
    language = "prefill" in request.stages or "decode" in request.stages
    return ("vision" in request.stages) + language + (workload["output_tokens"] if "decode" in request.stages else 0)


def _advice(problem: Exception) -> str:
    if isinstance(problem, ImportError):
        return "The worker's interpreter needs torch and transformers >= 5.20; install them, or choose another interpreter."
    if "out of memory" in str(problem).lower() or isinstance(problem, MemoryError):
        return "The device has too little memory for the real weights and activations: choose meta, or a smaller grid or batch."
    return "Nothing was changed; the meta device needs neither a GPU nor memory."


if __name__ == "__main__":
    sys.exit(main())
