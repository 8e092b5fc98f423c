"""What kinds of pages take on a device under an engine that batches continuously, with as many pages in flight as it holds, at most all."""

from collections.abc import Sequence
from dataclasses import replace

from ocr_flops.spec.host import Ranged
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import EngineSpec
from ocr_flops.studies.corpus.batches import Spent
from ocr_flops.studies.corpus.kinds import Kind
from ocr_flops.timing.serving.result import Serving
from ocr_flops.timing.serving.steady import Server, prepare, solve_each


def is_server(engine: EngineSpec) -> bool:
    """Whether an engine schedules pages by itself, a step at a time."""
    return engine.block_tokens is not None


def time_served(run: RunSpec, kinds: Sequence[Kind], preprocess_workers: int | None = None) -> tuple[list[Spent], str, str]:
    """Device seconds of all pages of every kind in the steady state of their mix, what they rest on, and what limits them.

    The mix's time is divided among kinds as their pages would take it if each were served alone.

    Args:
        run: with a device.
        kinds: of `list_kinds`; a page ends when it ends, so that a kind's mean length counts.
        preprocess_workers: threads that cut pages into views; None for the engine's own.

    Raises:
        SpecError: as of `serving`.
    """
    mixed, mix = serve_mix(run, kinds, preprocess_workers)
    rates, requests = solve_each(mixed.served)
    parts = [kind.pages / rate for kind, rate in zip(kinds, rates.tolist(), strict=True)]
    count, rate, whole = sum(kind.pages for kind in kinds), mix.pages_per_second, sum(parts)
    seconds = Ranged(count / rate.value, count / rate.high, count / rate.low)
    spent = [Spent(seconds * (part / whole), mix.concurrency, 1, request) for part, request in zip(parts, requests, strict=True)]
    return spent, mix.time_basis, str(mix.limited_by)


def serve_mix(run: RunSpec, kinds: Sequence[Kind], preprocess_workers: int | None) -> tuple[Server, Serving]:
    """What serves all kinds together, and its steady state; arguments and errors as of `time_served`."""
    pages = [replace(kind.page, prompt_tokens=kind.prompt_tokens, output_tokens=max(1, round(kind.lengths.mean))) for kind in kinds]
    server = prepare(
        run.model,
        pages,
        run.hardware,
        engine=run.engine,
        weights=[float(kind.pages) for kind in kinds],
        options={"preprocess_workers": preprocess_workers},
        attention=run.attention,
        dtype=run.dtype,
        host=run.host,
        efficiency=run.efficiency,
    )
    return server, server.solve(min(sum(kind.pages for kind in kinds), server.max_concurrency))
