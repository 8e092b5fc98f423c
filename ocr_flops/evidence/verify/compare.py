"""Every number of a result of the real model against its analytic value: by layer, by module, by stage and end to end.

A result is compared with the estimate of the engine, attention, precision and logits that ran, never with anything else.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from math import prod
from typing import Any

import polars as pl

from ocr_flops.cost.polynomial import evaluate
from ocr_flops.cost.stage_groups import KV_MODULE
from ocr_flops.cost.tape import TRAFFIC
from ocr_flops.measure.events import Result
from ocr_flops.spec.specs import CALL, STAGES, AttentionSpec, ModelSpec
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.estimate import Estimate, estimate

LEVELS = ("layer", "module", "stage", "total")
SUMMED = ("tensor_flops", "vector_flops", "operators", *TRAFFIC)
FLOPS, PEAK, KV, PARAMETERS, WEIGHTS = "torch_flops", "peak_activation_bytes", "kv_cache_bytes", "parameters", "weight_bytes"
WORK = {"count": (FLOPS,), "trace": (FLOPS, *SUMMED, PEAK)}  # kind of run: the columns of costs that it measures; a trace counts, too
WHAT = {  # what can be compared: its columns
    "flops": (FLOPS, "tensor_flops", "vector_flops"),
    "operators": ("operators",),
    "traffic": TRAFFIC,
    "peak": (PEAK,),
    "parameters": (PARAMETERS, WEIGHTS),
    "kv": (KV,),
}
MEASURES = {"count": {"flops", "parameters", "kv"}, "trace": set(WHAT)}  # kind of run: what it measures
MODEL = "model"  # stands for a stage where a number belongs to the model, not to a stage
ALL = "total"  # stands for a module, or a stage, where a number is of all of them
EXPERTS = "decoder.routed_experts"
WORDS = ("level", "stage", "attention", "module", "column")  # columns of what is compared that are not integers

Place = tuple[str, int | None]  # module, layer (None outside layers, and above that level)
Row = dict[str, int]
Stage = Mapping[str, Any]  # of a result


def estimate_result(model: ModelSpec, result: Result) -> Estimate:
    """Estimate exactly what ran, of the dimensions that were sent."""
    ran, kernels = result.ran, result.ran["attention"]
    stages = tuple(stage for stage in (*STAGES, CALL) if stage in result.stages)
    hits = {stage: result.stages[stage].get("experts", {}).get("hit", 0) for stage in stages if ran["kind"] == "trace"}
    whole = estimate(
        model,
        Workload(**asdict(result.workload)),
        AttentionSpec(next(iter(kernels.values())) if len(set(kernels.values())) == 1 else "mixed", kernels),
        engine=ran["engine"],
        dtype=ran["dtype"],
        prefill_logits=ran["prefill_logits"],
        experts_hit={stage: hit for stage, hit in hits.items() if hit},
    )
    return replace(whole, chosen_stages=stages)


def compare_flops(model: ModelSpec, result: Result) -> pl.DataFrame:
    """Compare the FLOPs that torch counted with the analytic ones, per stage and module, with a row "total" per stage.

    Returns:
        stage, module, counted_flops, analytic_flops, difference (integers).
    """
    numbers, rows = estimate_result(model, result), []
    for stage, seen in result.stages.items():
        expected = {module: row for (of, module), row in numbers.module_numbers.items() if of == stage}
        measured = {module: {FLOPS: flops} for module, flops in seen["modules"].items()}
        rows += [(stage, module, *pair) for module, _, *pair in pair_numbers(measured, expected, (FLOPS,))]
        rows.append((stage, ALL, seen["flops"], sum(row[FLOPS] for row in expected.values())))
    return difference_frame(rows, "stage", "module", "counted_flops", "analytic_flops")


def difference_frame(rows: list[tuple[Any, ...]], *names: str) -> pl.DataFrame:
    """Rows of words (columns of `WORDS`) and integers as a frame; the last column but one less the last is its "difference"."""
    schema = {name: pl.String if name in WORDS else pl.Int64 for name in names}
    return pl.DataFrame(rows, schema, orient="row").with_columns(difference=pl.col(names[-2]) - pl.col(names[-1]))


def pair_numbers(
    measured: Mapping[Any, Row], expected: Mapping[Any, Row], columns: Iterable[str] = ()
) -> Iterator[tuple[Any, str, int, int]]:
    """Two tables beside each other: key, column, measured and expected, for every key that either has; 0 for what one of them lacks.

    Args:
        measured, expected: rows of integers by the same keys.
        columns: those compared; by default all that either has of a key.
    """
    for key in dict.fromkeys([*expected, *measured]):
        ours, theirs = expected.get(key, {}), measured.get(key, {})
        for column in columns or dict.fromkeys([*ours, *theirs]):
            yield key, column, theirs.get(column, 0), ours.get(column, 0)


def compare_numbers(model: ModelSpec, result: Result, levels: Iterable[str] = LEVELS, what: Iterable[str] = tuple(WHAT)) -> pl.DataFrame:
    """Compare everything that a result can be held against.

    A layer is that of the nn.Module which runs an operator; a residual addition of the vision towers belongs to the layer it feeds.
    Stage totals are the counter's own and the largest live sum of the whole stage; at a stage, the weights compared are those of the
    parameters that some operator read. The experts of a grouped matrix product are charged as hit on both sides: the trace hands the
    kernel all of them, so what the model's dimensions say that it was handed is replaced by the experts hit (those the router picked,
    or the expected number where there is no data to route by; by layer their mean).

    Args:
        model: the dimensions that were sent.
        result: from the worker.
        levels: those of `LEVELS` wanted.
        what: those of `WHAT` wanted; a count has FLOPs alone, no traffic.

    Returns:
        level, stage ("model" for parameters), module ("total" above modules), layer, column, measured, analytic, difference (integers).
    """
    numbers, wanted = estimate_result(model, result), {column for name in what for column in WHAT[name]}
    rows = []
    for level in levels:
        pairs = pair_numbers(_measured(level, result, numbers), _expected(level, result.ran["kind"], numbers))
        rows += [(level, *key, column, *pair) for key, column, *pair in pairs if column in wanted]
    return difference_frame(rows, "level", "stage", "module", "layer", "column", "measured", "analytic")


def _expected(level: str, kind: str, numbers: Estimate) -> dict[tuple[str, *Place], Row]:
    """Analytic values of the columns that a kind of run measures, by stage and place."""
    work, config = WORK[kind], numbers.config
    if level == "layer":
        found = _by_layer(numbers, work)
        layers = config.model.tower("decoder").layers
        for stage in {*numbers.stage_numbers} - {"vision"}:
            for layer in range(layers):
                found[stage, KV_MODULE, layer][KV] = numbers.stage_numbers[stage][KV] // layers
        return found | {(MODEL, *place): {PARAMETERS: count} for place, count in config.layer_parameters.items()}
    if level == "module":
        found = {
            (stage, module, None): _select(row, (*work, KV) if module == KV_MODULE else work)
            for (stage, module), row in numbers.module_numbers.items()
        }
        return found | {(MODEL, module, None): {PARAMETERS: count} for module, count in config.parameters.items()}
    weights = (WEIGHTS,) if kind == "trace" and level == "stage" else ()
    stages = {
        stage: _select(row, (*work, *weights) if stage == "vision" else (*work, *weights, KV))
        for stage, row in numbers.stage_numbers.items()
    }
    if level == "total":
        return {(ALL, ALL, None): _total(stages, work) | {PARAMETERS: sum(config.parameters.values())}}
    for stage in {"vision", CALL} & {*stages} if weights else ():  # of which no operator reads some
        unused = config.engine_code.unused_clip_weights(config.model.tower("clip"))
        stages[stage][WEIGHTS] -= sum(map(prod, unused)) * config.itemsize
    return {(stage, ALL, None): row for stage, row in stages.items()}


def _by_layer(numbers: Estimate, columns: Iterable[str]) -> dict[tuple[str, *Place], Row]:
    """Analytic costs by layer.

    What the operators of a block cost over all its layers is shared out evenly among them, which is exact but for the bytes of experts
    where the hits of each layer are not known.
    """
    found: dict[tuple[str, *Place], dict[str, Fraction | int]] = {}
    for group in numbers.stage_groups():
        for operation in group.program.operations:
            layers = operation.layers or (None,)
            costs = {name: Fraction(evaluate(operation.costs[name], group.summed), len(layers)) for name in columns if name != PEAK}
            live = max(group.largest(partial(evaluate, one)) for one in operation.all_live_bytes)
            for layer in layers:
                row = found.setdefault((group.stage, operation.module, layer), dict.fromkeys(columns, 0))
                for name, cost in costs.items():
                    row[name] += cost
                if PEAK in row:
                    row[PEAK] = max(row[PEAK], live)
    return {key: {name: int(number) for name, number in row.items()} for key, row in found.items()}


def _measured(level: str, result: Result, numbers: Estimate) -> dict[tuple[str, *Place], Row]:
    """What ran, by the same keys and columns."""
    ran, found = result.ran, {}
    for stage, seen in result.stages.items():
        rows = _places(level, seen)
        if ran["kind"] == "trace":
            _charge_hits(rows, stage, seen, numbers)
        found |= {(stage, *place): row for place, row in rows.items()}
    if level == "total":
        stages = {stage: row for (stage, *_), row in found.items()}
        return {(ALL, ALL, None): _total(stages, WORK[ran["kind"]]) | {PARAMETERS: ran["parameters"]}}
    for place, count in ran["layer_parameters"].items() if level != "stage" else ():
        module, layer = _parse_place(place)
        row = found.setdefault((MODEL, module, layer if level == "layer" else None), {PARAMETERS: 0})
        row[PARAMETERS] += count
    return found


def _places(level: str, seen: Stage) -> dict[Place, Row]:
    """The rows of a stage that ran, at a level; the stage itself above modules."""
    if level in ("stage", "total"):
        rows: dict[Place, Row] = {(ALL, None): {FLOPS: seen["flops"]}}
        if "trace" in seen:
            sums = {name: sum(traced[name] for traced in seen["trace"].values()) for name in SUMMED}
            rows[ALL, None] |= {**sums, PEAK: seen["peak"]["bytes"], WEIGHTS: seen[WEIGHTS]}
        held = {(ALL, None): sum(seen[KV])} if KV in seen else {}
    else:
        traced, counted = ("layer_trace", "layers") if level == "layer" else ("trace", "modules")
        rows = {_parse_place(name): dict(row) for name, row in seen.get(traced, {}).items()}
        for name, flops in seen[counted].items():
            rows.setdefault(_parse_place(name), {})[FLOPS] = flops
        layers = seen.get(KV, ())
        held = {(KV_MODULE, layer): size for layer, size in enumerate(layers)} if level == "layer" else {(KV_MODULE, None): sum(layers)}
    for place, size in held.items() if KV in seen else ():
        rows.setdefault(place, {})[KV] = size
    return rows


def _charge_hits(rows: dict[Place, Row], stage: str, seen: Stage, numbers: Estimate) -> None:
    """Replace the weights of the experts that were read by those of the experts hit.

    A grouped kernel is handed all experts. A loop reads those hit: by data, or, without any, a whole number of them that the worker
    assumed, where the expected number has a fraction; by layer their mean is compared.
    """
    config = numbers.config
    charged = numbers.module_numbers.get((stage, EXPERTS), {}).get("weight_io_bytes")
    if not charged:
        return
    decoder = config.model.tower("decoder")
    layers = decoder.sparse_layers
    all_bytes = config.parameters[EXPERTS] * config.itemsize
    if config.engine_code.experts == "grouped_mm":
        read = all_bytes * seen["steps"]
    else:
        hits = seen["experts"]
        read = (hits["hit"] or hits["assumed"]) * all_bytes // (layers * decoder.experts)
        of_layers = [row for (module, layer), row in rows.items() if module == EXPERTS and layer is not None]
        for column in ("weight_io_bytes", "operators"):
            mean = sum(row[column] for row in of_layers) // max(1, len(of_layers))
            for row in of_layers:
                row[column] = mean
    for (module, layer), row in rows.items():
        if module in (EXPERTS, ALL):
            share = 1 if layer is None else layers
            row["weight_io_bytes"] += charged // share - read // share


def _total(stages: Mapping[str, Row], columns: Iterable[str]) -> Row:
    """Work and traffic of all stages together, which those of the call repeat, the largest peak, the largest cache."""
    added = [row for stage, row in stages.items() if stage != CALL] or list(stages.values())
    total = {name: max(row[name] for row in stages.values()) if name == PEAK else sum(row[name] for row in added) for name in columns}
    held = [row[KV] for row in added if KV in row]
    return total | ({KV: max(held)} if held else {})


def _parse_place(text: str) -> Place:
    """The module and the layer of "module/layer", or of "module"."""
    module, _, layer = text.partition("/")
    return module, int(layer) if layer else None


def _select(row: Row, columns: Iterable[str]) -> Row:
    return {column: row[column] for column in columns}
