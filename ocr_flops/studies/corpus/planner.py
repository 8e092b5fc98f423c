"""Pages, a model and devices -> the plan of a corpus."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ocr_flops.cost.models.learned import find_program
from ocr_flops.errors import SpecError, list_allowed, one_of
from ocr_flops.spec.catalog import (
    load_attention,
    load_efficiency,
    load_hardware,
    load_host,
    load_mode,
    load_model,
    modes,
    names,
    serving_engines,
)
from ocr_flops.spec.host import EfficiencySpec, HostSpec
from ocr_flops.spec.run_spec import RunSpec
from ocr_flops.spec.specs import PAGED, STAGES, AttentionSpec, EngineSpec, HardwareSpec, Mode, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.studies.corpus.flights import is_server
from ocr_flops.studies.corpus.groups import Groups, group_pages
from ocr_flops.studies.corpus.lengths import DEFAULT_LIMIT, DEFAULT_TOKENS, Lengths, fixed
from ocr_flops.studies.corpus.plans import Plan
from ocr_flops.studies.corpus.sources import open_pages
from ocr_flops.timing.estimate import estimate


def plan(
    pages: Any,
    model: str | ModelSpec,
    hardware: str | HardwareSpec | Sequence[str | HardwareSpec],
    *,
    prices: Mapping[str, float] | None = None,
    currency: str = "USD",
    gpus: int = 1,
    mode: str | Mode = "gundam",
    output_tokens: int | Lengths | None = None,
    prompt_tokens: int = 10,
    loops: float = 0.0,
    limit: int = DEFAULT_LIMIT,
    batch_size: int | None = None,
    preprocess_workers: int | None = None,
    engine: str | EngineSpec = "transformers",
    attention: str | AttentionSpec = "vendor",
    dtype: str = "bf16",
    cache: str = "dynamic",
    host: str | HostSpec | None = None,
    efficiency: str | EfficiencySpec | None = None,
) -> Plan:
    """What a corpus of pages takes: tokens, FLOPs, and on devices GPU-hours, days, money and energy.

    Args:
        pages: a frame of a row per page, of Polars, DuckDB, PySpark or another that narwhals knows, lazy or not, which stays where it is;
            or groups of pages already made. Its columns: see `group_pages`; a path: see `open_pages`.
        model: from `load_model` or its name; one that was learned takes pages by its own rule, in batches under transformers.
        hardware: devices, or their names.
        prices: of a device hour, by the device's name.
        currency: of the prices.
        gpus: devices side by side.
        mode: the resolution mode of pages without one of their own.
        output_tokens: of a table without such a column: a number, or `lognormal`, `quantiles`.
        prompt_tokens: of a table without such a column.
        loops, limit: the share of pages that repeat themselves until the limit of output tokens ends them.
        batch_size: of every batch; by default the fastest that fits, by grid.
        preprocess_workers: threads that cut pages for an engine that serves; by default its own number, which is 1.
        engine: transformers, in batches, by default, where the command `ocr-flops corpus` has vLLM serve them.
        attention, dtype, cache: as of `estimate`.
        host, efficiency: as of `Estimate.on`.

    Raises:
        SpecError: a value that is not allowed, or no page that could be planned for.
    """
    model = load_model(model) if isinstance(model, str) else model
    mode = load_mode(mode) if isinstance(mode, str) else mode
    devices = [hardware] if isinstance(hardware, str | HardwareSpec) else list(hardware)
    workload = Workload.from_grid(mode=mode, prompt_tokens=prompt_tokens, batch_size=1 if batch_size is None else batch_size)
    config = estimate(model, workload, attention, engine=engine, dtype=dtype, cache=cache).config
    run = RunSpec(
        model,
        config.engine,
        load_attention(attention) if isinstance(attention, str) else attention,
        workload,
        dtype,
        PAGED if is_server(config.engine) else cache,
        config.prefill_logits,
        STAGES,
        None,
        load_host(host) if isinstance(host, str) else host,
        load_efficiency(efficiency) if isinstance(efficiency, str) else efficiency,
    )
    lengths = fixed(output_tokens) if isinstance(output_tokens, int) else output_tokens
    if isinstance(pages, str | Path):
        opened = open_pages(pages)
        pages, lengths = opened.table, lengths or (opened.folder and opened.folder.lengths)
    return plan_run(
        run,
        pages if isinstance(pages, Groups) else group_pages(pages, groupings(mode), model.page_rule),
        [load_hardware(one) if isinstance(one, str) else one for one in devices],
        prices=prices or {},
        currency=currency,
        gpus=gpus,
        mode=mode,
        lengths=lengths,
        loops=loops,
        limit=limit,
        batch_size=batch_size,
        preprocess_workers=preprocess_workers,
    )


def plan_run(run: RunSpec, corpus: Groups, devices: Sequence[HardwareSpec], **options: Any) -> Plan:
    """The plan of pages already grouped; `run` without a device, the rest as of `Plan`, and errors as of `plan`."""
    if not devices:
        raise SpecError(f"hardware: none given; choose from {list_allowed('', names('hardware'))}")
    for name, price in options["prices"].items():
        one_of("prices", name, tuple(device.name for device in devices))
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 < price < float("inf"):
            raise SpecError(f"prices.{name}: {price!r} is not a number above 0")
    if isinstance(options["gpus"], bool) or not isinstance(options["gpus"], int) or options["gpus"] < 1:
        raise SpecError(f"gpus: {options['gpus']!r} is not a whole number from 1 up")
    if options.get("preprocess_workers") is not None and not is_server(run.engine):
        raise SpecError(f"preprocess_workers: has no effect under {run.engine.name}; choose engine {' or '.join(serving_engines())}")
    if options.get("batch_size") is not None and is_server(run.engine):
        raise SpecError(f"batch_size: has no effect under {run.engine.name}, which batches by itself; choose engine transformers")
    check_model(run.model, run.engine)
    if not corpus.pages:
        raise SpecError("pages: none that could be planned for" + "".join(f"; {count:,}: {why}" for why, count in corpus.refused.items()))
    if options["lengths"] is None and "output_tokens" not in corpus.frame.columns:
        options["lengths"] = fixed(DEFAULT_TOKENS)._replace(basis=f"{DEFAULT_TOKENS} tokens a page, as nothing is said of them")
    return Plan(run, corpus, tuple(devices), **options)


def check_model(model: ModelSpec, engine: EngineSpec) -> None:
    """Raises SpecError for a learned model that is served, or whose costs are not quadratic in a page's lengths."""
    if model.learned is None:
        return
    if is_server(engine):
        raise SpecError(f"model: the kernels that {engine.label} runs of {model.name!r} are not known here; choose engine transformers")
    if find_program(model).window:
        raise SpecError(f"model: {model.name!r} attends to a window of its output, so that sums over lengths do not give a corpus's costs")


def groupings(mode: Mode) -> tuple[Mode, ...]:
    """The resolution modes for which pages are grouped where one is wanted: it, and those without tiles, which cost nothing."""
    return (mode, *(one for one in modes() if not one.tile_px))
