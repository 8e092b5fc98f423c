"""The command `ocr-flops serving`: what an engine that batches continuously delivers on one GPU or many."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Columns, Form, Out, Overrides
from ocr_flops.errors import SpecError

if TYPE_CHECKING:
    from ocr_flops.spec.run_spec import RunSpec
    from ocr_flops.spec.workload import Workload

Engine = partial(typer.Option, rich_help_panel="Engine", show_default="the engine's own")


def serve_workload(
    overrides: Overrides = None,
    concurrency: Annotated[str, typer.Option(metavar="N,...", help="Requests in flight on each GPU; as many as fit by default.")] = "",
    rate: Annotated[str, typer.Option(metavar="R,...", help="Requests a second that arrive at all GPUs, instead of a concurrency.")] = "",
    gpus: Annotated[str, typer.Option(metavar="NAME,...", help="GPUs to compare, instead of hardware=.")] = "",
    replicas: Annotated[int, typer.Option(metavar="N", help="Copies of the model, each on a GPU of its own.")] = 1,
    mix: Annotated[str, typer.Option(metavar="MODE[:TOKENS]=W,...", help="Kinds of page with weights: base:300=1,gundam:900=2.")] = "",
    max_num_batched_tokens: Annotated[int | None, Engine(metavar="N", help="Tokens of a step at most.")] = None,
    max_num_seqs: Annotated[int | None, Engine(metavar="N", help="Sequences at once at most.")] = None,
    gpu_memory_utilization: Annotated[float | None, Engine(metavar="PART", help="Part of the memory it takes.")] = None,
    block_size: Annotated[int | None, Engine(metavar="N", help="Tokens of a block of the cache.")] = None,
    chunked_prefill: Annotated[bool | None, Engine("--chunked-prefill/--no-chunked-prefill", help="Prompts in several steps.")] = None,
    ngram_ban: Annotated[bool | None, Engine("--ngram-ban/--no-ngram-ban", help="Forbid n-grams that repeat, in Python.")] = None,
    preprocess_workers: Annotated[int | None, Engine(metavar="N", help="Threads that cut pages into views.")] = None,
    preprocess_ms: Annotated[float | None, Engine(metavar="MS", help="What one takes for a page.")] = None,
    form: Form = "table",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.", rich_help_panel="Output")] = False,
    out: Out = None,
    columns: Columns = "",
) -> int:
    """How many pages a GPU delivers in production, and what one waits for the first token."""
    import polars as pl

    from ocr_flops.evidence.calibration.conditions import with_records
    from ocr_flops.reports.serving import describe_serving, describe_step, serving_table
    from ocr_flops.spec.catalog import load_hardware, names
    from ocr_flops.spec.run_spec import load_run
    from ocr_flops.timing.serving.steady import ENGINE, prepare

    given = list(overrides or ())
    if not any(one.startswith("engine=") for one in given):
        given.append(f"engine={ENGINE}")
    run = load_run(given)
    if gpus and run.hardware:
        raise SpecError(f"--gpus: hardware={run.hardware.name} is given too; leave out one of them")
    if not gpus and not run.hardware:
        raise SpecError("hardware: missing; name a GPU, as in hardware=l4 or --gpus l4,a100_40gb")
    chosen = [load_hardware(one) for one in console.known_names("--gpus", gpus, names("hardware"))] if gpus else [run.hardware]
    load = {"concurrency": _numbers("--concurrency", concurrency, int), "rate": _numbers("--rate", rate, float)}
    options = {
        "max_num_batched_tokens": max_num_batched_tokens,
        "max_num_seqs": max_num_seqs,
        "gpu_memory_utilization": gpu_memory_utilization,
        "block_size": block_size,
        "chunked_prefill": chunked_prefill,
        "ngram_ban": ngram_ban,
        "preprocess_workers": preprocess_workers,
        "preprocess_ms": preprocess_ms,
    }
    workloads, weights = _kinds(run, mix)
    found, refused = [], []
    for gpu in chosen:
        own = with_records(replace(run, hardware=gpu))
        basis = {"attention": own.attention, "dtype": own.dtype, "host": own.host, "efficiency": own.efficiency}
        try:
            server = prepare(own.model, workloads, gpu, own.engine, weights, options, **basis)
            found.append(server.solve(**load, replicas=replicas))
        except SpecError as problem:
            if len(chosen) == 1:
                raise
            refused.append(str(problem))
    if not found:
        raise SpecError("; ".join(refused))
    rows = pl.concat([one.frame for one in found], how="diagonal_relaxed")
    is_single = all(one is None or not hasattr(one, "__len__") for one in load.values())
    said = [f"{describe_serving(one)} {describe_step(one)}" for one in found] if is_single else []
    shown = rows if columns else serving_table(rows)
    values = {"run": run, "said": said, "refused": refused, "rows": shown, "columns": columns, "basis": found[0].time_basis}

    def data() -> dict[str, Any]:
        listed = rows.to_dicts()
        shared = {"time_basis": found[0].time_basis, "refused": refused}
        return {**listed[0], **shared} if len(listed) == 1 else {"rows": listed, **shared}

    text = partial(console.render_text, "serving", out, **values)
    console.write_result("serving", "json" if json else form, out, json=data, csv=lambda: rows, table=text)
    return 0


def _numbers(option: str, text: str, kind: type) -> Any:
    """The numbers, separated by commas, that an option gives: None, one, or an array of several."""
    import numpy as np

    try:
        found = [kind(one) for one in text.split(",") if one.strip()]
    except ValueError:
        raise SpecError(f"{option}: {text!r} is not a {'whole ' * (kind is int)}number, or several with commas between") from None
    return np.array(found) if len(found) > 1 else found[0] if found else None


def _kinds(run: RunSpec, mix: str) -> tuple[list[Workload], list[float] | None]:
    """The kinds of page that `--mix` names, each with its weight, and what it does not say as in the run."""
    if not mix:
        return [run.workload], None
    from ocr_flops.spec.catalog import names
    from ocr_flops.spec.workload import Workload

    kinds, weights = [], []
    for one in mix.split(","):
        kind, _, weight = one.partition("=")
        mode, _, tokens = kind.partition(":")
        try:
            weights.append(float(weight))
            output = int(tokens) if tokens else run.workload.output_tokens
        except ValueError:
            raise SpecError(f"--mix: {one!r} is not of the form MODE=WEIGHT or MODE:TOKENS=WEIGHT, as in base:300=1,gundam:900=2") from None
        mode = console.known_names("--mix", mode, names("workload"))[0]
        rest = {"prompt_tokens": run.workload.prompt_tokens, "output_tokens": output}
        if run.workload.image_width_px:
            kinds.append(Workload.from_image(run.workload.image_width_px, run.workload.image_height_px, mode, **rest))
        else:
            grid = (run.workload.columns, run.workload.rows) if mode.startswith("gundam") else (1, 1)
            kinds.append(Workload.from_grid(*grid, mode, **rest))
    return kinds, weights
