"""What kinds of pages take on a device under an engine that batches continuously, with as many pages in flight as it holds, at most all."""

from collections.abc import Sequence
from dataclasses import replace

from ocr_flops.spec.host import Ranged
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import EngineSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.studies.corpus.batches import Spent
from ocr_flops.studies.corpus.kinds import Kind
from ocr_flops.timing.serving.steady import Server, prepare


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
    pages = [replace(kind.page, prompt_tokens=kind.prompt_tokens, output_tokens=max(1, round(kind.lengths.mean))) for kind in kinds]
    basis = {"attention": run.attention, "dtype": run.dtype, "host": run.host, "efficiency": run.efficiency}

    def server(workloads: list[Workload], weights: list[float]) -> Server:
        options = {"preprocess_workers": preprocess_workers}
        return prepare(run.model, workloads, run.hardware, engine=run.engine, weights=weights, options=options, **basis)

    count, mixed = sum(kind.pages for kind in kinds), server(pages, [float(kind.pages) for kind in kinds])
    mix = mixed.solve(min(count, mixed.max_concurrency))
    each = [server([page], [1.0]) for page in pages]
    alone = [kind.pages / one.solve().pages_per_second.value for kind, one in zip(kinds, each, strict=True)]
    requests = [_request(one) for one in each]
    rate, whole = mix.pages_per_second, sum(alone)
    seconds = count / rate.value, count / rate.high, count / rate.low
    return (
        [
            Spent(Ranged(*(one * part / whole for one in seconds)), mix.concurrency, 1, request)
            for part, request in zip(alone, requests, strict=True)
        ],
        mix.time_basis,
        str(mix.limited_by),
    )


def _request(server: Server) -> Ranged:
    """Seconds of a request that is alone."""
    found = server.solve(1)
    return Ranged(*(first + server.later * each for first, each in zip(found.ttft_seconds[:3], found.tpot_seconds[:3], strict=True)))
