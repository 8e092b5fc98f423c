"""Every number of a result against its analytic value: by layer, by module, by stage and end to end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ocr_flops.cost.program import evaluate
from ocr_flops.cost.stage_groups import KV_MODULE
from ocr_flops.evidence.verify.results import ALL, analytic
from ocr_flops.measure.events import Result
from ocr_flops.spec.specs import ModelSpec
from ocr_flops.timing.estimate import Estimate

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.cost.run_config import RunConfig

LEVELS = ("layer", "module", "stage", "total")
WORK = ("tensor_flops", "vector_flops", "operators")
TRAFFIC = ("weight_io_bytes", "activation_io_bytes", "kv_io_bytes")
PEAK, KV, PARAMETERS, WEIGHTS = "peak_activation_bytes", "kv_cache_bytes", "parameters", "weight_bytes"
COUNTED = ("torch_flops",)
TRACED = (*WORK, *TRAFFIC, PEAK)
WHAT = {  # what can be compared: its columns
    "flops": (*COUNTED, "tensor_flops", "vector_flops"),
    "operators": ("operators",),
    "traffic": TRAFFIC,
    "peak": (PEAK,),
    "parameters": (PARAMETERS, WEIGHTS),
    "kv": (KV,),
}
MEASURES = {"count": {"flops", "parameters", "kv"}, "trace": set(WHAT)}  # kind of run: what it measures
MODEL = "model"  # stands for a stage where a number belongs to the model, not to a stage
EXPERTS = "decoder.routed_experts"

Key = tuple[str, str, int | None]  # stage, module, layer (None outside layers, and above that level)
Numbers = dict[Key, dict[str, int]]
Stage = dict[str, Any]  # of a result


def differences(model: ModelSpec, result: Result, levels: Iterable[str] = LEVELS, what: Iterable[str] = tuple(WHAT)) -> pl.DataFrame:
    """Everything one result can be held against.

    A layer is that of the nn.Module which runs an operator; a residual addition of the vision towers belongs to the layer it feeds.
    Stage totals are the counter's own and the largest live sum of the whole stage; at a stage, the weights compared are those of the
    parameters that some operator read. The experts of a grouped matrix product are charged as hit on both sides: the trace hands the
    kernel all of them, so what the model's dimensions say that it was handed is replaced by the experts hit (those the router picked,
    or the expected number where there is no data to route by; by layer their mean).

    Args:
        model: the dimensions that were sent.
        result: from the worker.
        levels: those of `LEVELS` wanted.
        what: those of `WHAT` wanted; a count has no traffic, and torch's own FLOPs are in a count only.

    Returns:
        level, stage ("model" for parameters), module ("total" above modules), layer, column, measured, analytic, difference (integers).
    """
    import polars as pl

    numbers, columns = analytic(model, result), {column for name in what for column in WHAT[name]}
    rows = []
    for level in levels:
        measured, expected = _measured(level, result, numbers), _expected(level, result, numbers)
        for key in dict.fromkeys([*expected, *measured]):
            ours, theirs = expected.get(key, {}), measured.get(key, {})
            for column in dict.fromkeys([*ours, *theirs]):
                if column in columns:
                    found, wanted = theirs.get(column, 0), ours.get(column, 0)
                    rows.append((level, *key, column, found, wanted, found - wanted))
    texts, integers = ("level", "stage", "module"), ("measured", "analytic", "difference")
    schema = {
        **dict.fromkeys(texts, pl.String),
        "layer": pl.Int64,
        "column": pl.String,
        **dict.fromkeys(integers, pl.Int64),
    }
    return pl.DataFrame(rows, schema, orient="row")


def _columns(result: Result) -> tuple[str, ...]:
    return TRACED if result.ran["kind"] == "trace" else COUNTED


def _expected(level: str, result: Result, numbers: Estimate) -> Numbers:
    """Analytic values of the columns that this kind of run measures."""
    columns, config = _columns(result), numbers.config
    if level == "layer":
        found = _by_layer(numbers, columns)
        layers = config.model.tower("decoder").layers
        for stage, row in numbers.stage_numbers.items():
            if stage != "vision":
                for layer in range(layers):
                    found[stage, KV_MODULE, layer][KV] = row[KV] // layers
        parameters = {(MODEL, *place): {PARAMETERS: count} for place, count in config.layer_parameters.items()}
        return found | parameters
    if level == "module":
        rows = {(stage, module, None): row for (stage, module), row in numbers.module_numbers.items()}
        found = {key: _picked(row, (*columns, *([KV] if key[1] == KV_MODULE else ()))) for key, row in rows.items()}
        return found | {(MODEL, module, None): {PARAMETERS: count} for module, count in config.parameters.items()}
    seen = (WEIGHTS,) if result.ran["kind"] == "trace" else ()
    stages = {stage: _picked(row, (*columns, *seen, *([KV] if stage != "vision" else ()))) for stage, row in numbers.stage_numbers.items()}
    if seen and "vision" in stages:
        stages["vision"][WEIGHTS] -= _never_read(config)
    if level == "stage":
        return {(stage, ALL, None): row for stage, row in stages.items()}
    return {(ALL, ALL, None): _total(stages.values(), columns) | {PARAMETERS: sum(config.parameters.values())}}


def _never_read(config: RunConfig) -> int:
    """Bytes of parameters of the vision stage that no operator reads: CLIP's own patch convolution."""
    return config.engine_code.unused_parameters(config.model.tower("clip")) * config.itemsize


def _by_layer(numbers: Estimate, columns: Sequence[str]) -> Numbers:
    """Analytic costs by layer: what the operators of a block cost over all its layers, shared out evenly among them, which is exact but
    for the bytes of experts where the hits of each layer are not known."""
    found: dict[Key, dict[str, Fraction | int]] = {}
    for group in numbers.stage_groups():
        for operation in group.program.operations:
            layers = operation.layers or (None,)
            costs = {name: Fraction(evaluate(operation.costs[name], group.summed), len(layers)) for name in columns if name != PEAK}
            live = evaluate(operation.live, group.last)
            for layer in layers:
                row = found.setdefault((group.stage, operation.module, layer), dict.fromkeys(columns, 0))
                for name, cost in costs.items():
                    row[name] += cost
                if PEAK in row:
                    row[PEAK] = max(row[PEAK], live)
    return {key: {name: int(number) for name, number in row.items()} for key, row in found.items()}


def _measured(level: str, result: Result, numbers: Estimate) -> Numbers:
    """What ran, in the same keys and columns."""
    ran, found = result.ran, {}
    whole = {"layer": _places, "module": _modules}.get(level)
    for stage, seen in result.stages.items():
        rows = whole(seen, ran["kind"]) if whole else {(ALL, None): _stage(seen, ran["kind"])}
        if ran["kind"] == "trace":
            _charge_hits(rows, stage, seen, numbers)
        for place, row in rows.items():
            found[stage, *place] = row
    if level in ("layer", "module"):
        for place, count in ran["layer_parameters"].items():
            module, layer = _place(place)
            row = found.setdefault((MODEL, module, layer if level == "layer" else None), {PARAMETERS: 0})
            row[PARAMETERS] += count
    if level == "total":
        total = _total(found.values(), _columns(result))
        return {(ALL, ALL, None): total | {PARAMETERS: ran["parameters"]}}
    return found


def _places(seen: Stage, kind: str) -> dict[tuple[str, int | None], dict[str, int]]:
    table = seen["layer_trace"] if kind == "trace" else {place: {COUNTED[0]: flops} for place, flops in seen["layers"].items()}
    rows = {_place(place): _picked(row, row) for place, row in table.items()}
    for layer, held in enumerate(seen.get(KV, ())):
        rows.setdefault((KV_MODULE, layer), {})[KV] = held
    return rows


def _modules(seen: Stage, kind: str) -> dict[tuple[str, int | None], dict[str, int]]:
    table = seen["trace"] if kind == "trace" else {module: {COUNTED[0]: flops} for module, flops in seen["modules"].items()}
    rows = {(module, None): _picked(row, row) for module, row in table.items()}
    if KV in seen:
        rows.setdefault((KV_MODULE, None), {})[KV] = sum(seen[KV])
    return rows


def _stage(seen: Stage, kind: str) -> dict[str, int]:
    row = {KV: sum(seen[KV])} if KV in seen else {}
    if kind == "count":
        return {COUNTED[0]: seen["flops"], **row}
    sums = {name: sum(traced[name] for traced in seen["trace"].values()) for name in (*WORK, *TRAFFIC)}
    return {**sums, PEAK: seen["peak"]["bytes"], WEIGHTS: seen[WEIGHTS], **row}


def _charge_hits(rows: dict[tuple[str, int | None], dict[str, int]], stage: str, seen: Stage, numbers: Estimate) -> None:
    """Replaces the weights of the experts that were read by those of the experts hit.

    A grouped kernel is handed all experts. A loop reads those hit: by data, or, without any, a whole number of them that the worker
    assumed, where the expected number has a fraction; by layer their mean is compared.
    """
    config = numbers.config
    charged = numbers.module_numbers.get((stage, EXPERTS), {}).get("weight_io_bytes")
    if charged is None:
        return
    decoder = config.model.tower("decoder")
    layers = decoder.layers - decoder.dense_layers
    all_bytes = config.parameters[EXPERTS] * config.itemsize
    if config.engine_code.experts == "grouped_mm":
        read = all_bytes * seen["steps"]
    else:
        hits = seen["experts"]
        read = (hits["hit"] or hits["assumed"]) * all_bytes // (layers * decoder.experts)
        _level_out([row for (module, layer), row in rows.items() if module == EXPERTS and layer is not None])
    for (module, layer), row in rows.items():
        if module in (EXPERTS, ALL):
            share = 1 if layer is None else layers
            row["weight_io_bytes"] += charged // share - read // share


def _level_out(layers: list[dict[str, int]]) -> None:
    """Gives every layer the mean of what depends on the experts it hits."""
    for column in ("weight_io_bytes", "operators"):
        mean = sum(row[column] for row in layers) // max(1, len(layers))
        for row in layers:
            row[column] = mean


def _total(stages: Iterable[dict[str, int]], columns: Sequence[str]) -> dict[str, int]:
    """Work and traffic of all stages together, the largest peak, the largest cache."""
    rows = list(stages)
    total = {name: (max if name == PEAK else sum)(row[name] for row in rows) for name in columns}
    held = [row[KV] for row in rows if KV in row]
    return total | ({KV: max(held)} if held else {})


def _place(text: str) -> tuple[str, int | None]:
    module, _, layer = text.partition("/")
    return module, int(layer) if layer else None


def _picked(row: dict[str, int], columns: Iterable[str]) -> dict[str, int]:
    return {column: row[column] for column in columns}
