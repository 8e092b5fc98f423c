"""What kinds of pages take on a device under an engine that batches continuously, with as many pages in flight as it holds, at most all."""

from collections.abc import Sequence
from dataclasses import replace

from ocr_flops.spec.host import Ranged
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import EngineSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.studies.corpus.batches import Spent
from ocr_flops.studies.corpus.kinds import Kind
from ocr_flops.timing.serving.result import Serving
from ocr_flops.timing.serving.steady import Server, prepare, solve_each


def is_server(engine: EngineSpec) -> bool:
    """Whether an engine schedules pages by itself, a step at a time."""
    return engine.block_tokens is not None


def time_served(mixed: Server, mix: Serving, kinds: Sequence[Kind]) -> tuple[list[Spent], str]:
    """Device seconds of all pages of every kind in the steady state of their mix, and what they rest on.

    The mix's time is divided among kinds as their pages would take it if each were served alone.

    Args:
        mixed, mix: of `serve_mix`.
        kinds: that it was asked for.
    """
    rates, requests = solve_each(mixed.served)
    parts = [kind.pages / rate for kind, rate in zip(kinds, rates.tolist(), strict=True)]
    seconds, whole = seconds_of_mix(mix, kinds), sum(parts)
    spent = [Spent(seconds * (part / whole), mix.concurrency, 1, request) for part, request in zip(parts, requests, strict=True)]
    return spent, mix.time_basis


def seconds_of_mix(mix: Serving, kinds: Sequence[Kind]) -> Ranged:
    """Device seconds of all pages; arguments as of `time_served`."""
    count, rate = sum(kind.pages for kind in kinds), mix.pages_per_second
    return Ranged(count / rate.value, count / rate.high, count / rate.low)


def request_pages(kinds: Sequence[Kind]) -> list[Workload]:
    """A request of every kind; a page ends when it ends, so that a kind's mean length counts."""
    return [replace(kind.page, prompt_tokens=kind.prompt_tokens, output_tokens=max(1, round(kind.lengths.mean))) for kind in kinds]


def serve_mix(run: RunSpec, kinds: Sequence[Kind], requests: Sequence[Workload], preprocess_workers: int | None) -> tuple[Server, Serving]:
    """What serves all kinds together, and its steady state.

    Args:
        run: with a device.
        kinds: of `list_kinds`.
        requests: of `request_pages`.
        preprocess_workers: threads that cut pages into views; None for the engine's own.

    Raises:
        SpecError: as of `serving`.
    """
    server = prepare(
        run.model,
        requests,
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
