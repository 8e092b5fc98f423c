"""Models whose programs were learned from traces of their class: the same columns as a tape, read from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from ocr_flops.cost.blocks.experts import expected_hits
from ocr_flops.cost.learning.dimensions import with_parts
from ocr_flops.cost.learning.program_file import LearnedProgram, LearnedStage, read_program
from ocr_flops.cost.models.base import LeastWork, Pipeline
from ocr_flops.cost.polynomial import Dim, Dimension
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.cost.tape import EXPERT_BYTES, SUMS, TRAFFIC, Operation, Region, Tape
from ocr_flops.errors import SpecError
from ocr_flops.files import user_cache_dir
from ocr_flops.spec.catalog import load_model
from ocr_flops.spec.reading import config_dirs, names
from ocr_flops.spec.specs import DTYPE_BYTES, AttentionSpec, ModelSpec
from ocr_flops.spec.workload import Column, Workload

FOLDER = "programs"
LAYER_EXPERT_BYTES = Dimension(
    "layer_expert_bytes"
)  # of the down projections of the experts hit in one layer, as all layers have them on average
on_missing: list[Callable[[ModelSpec, Path], None]] = []  # what learns a model, where something here can


def program_path(model: ModelSpec) -> Path:
    """The file of a model's program: in a folder of configs, or else where the user's cache keeps those that were learned here."""
    places = [folder / FOLDER / f"{model.name}.json" for folder in config_dirs()]
    return next((place for place in places if place.is_file() and _is_of(read_program(place), model)), kept_path(model))


def kept_path(model: ModelSpec) -> Path:
    """Where the user's cache keeps the program of a model: one for every class and dimensions."""
    spec = model.learned
    digest = hashlib.sha256(f"{spec.architecture} {spec.config}".encode()).hexdigest()[:12]
    return user_cache_dir() / FOLDER / f"{model.name}-{digest}.json"


def _is_of(program: LearnedProgram, model: ModelSpec) -> bool:
    """Whether a program is of a model's class and dimensions."""
    return program.architecture == model.learned.architecture and program.config == json.loads(model.learned.config)


@cache
def find_program(model: ModelSpec) -> LearnedProgram:
    """The program of a model; of a model of one's own, one that is not there is learned where that is possible.

    Raises:
        SpecError: there is none, or it is damaged; or the model is one of the group `model`, which `ocr-flops learn` learns.
    """
    path = program_path(model)
    if not path.is_file() and model.name in names("model") and load_model(model.name) == model:
        raise SpecError(f"model: no program of {model.name} is shipped; `ocr-flops learn {model.name}` learns it here, in minutes")
    for learn in on_missing if not path.is_file() else ():
        learn(model, path)
    return read_program(path)


def describe_replaced(config: RunConfig) -> str:
    """Which of the engine's own attention kernels a model's program lacks, what runs in their place, and why, in words; "" for none."""
    left_out = find_program(config.model).left_out if config.model.learned else {}
    own = {config.engine.kernel(tower): kernel for tower, kernel in config.attention.kernels}
    return "; ".join(
        f"{runs} counted in place of {name} ({left_out[name].removeprefix('attention: ')})"
        for name, runs in own.items()
        if name in left_out
    )


def describe_learned(model: ModelSpec) -> str:
    """What the numbers of a learned model rest on, in words."""
    program = find_program(model)
    checks = sum(len(stage.evidence.verified_at) for stage in program.stages)
    return f"learned from traces under transformers {program.transformers}, {checks} more were equal"


class LearnedPipeline(Pipeline, name="learned"):
    """The pipeline of learned models."""

    def check(self, config: RunConfig) -> None:
        program, name = find_program(config.model), config.model.name
        kernels = sorted({stage.attention for stage in program.stages})
        if config.engine.name != "transformers":
            instead = "no engine that serves is; choose engine=transformers, in batches, with estimate, plan, corpus or compare"
            raise SpecError(f"engine: {config.engine.name!r} is not known to run {config.model.label}: {instead}")
        if config.dtype != program.dtype:
            raise SpecError(f"dtype: {config.dtype!r} was not learned for {name}; choose {program.dtype}")
        if config.cache != "dynamic":
            raise SpecError(f"cache: {config.cache!r} was not learned for {name}; choose dynamic")
        if config.prefill_logits != "last":
            raise SpecError(f"prefill_logits: {config.prefill_logits!r} was not learned for {name}; choose last")
        chosen = {config.attention.kernel(spec.tower) for spec in config.model.attention_towers}
        if len(chosen) > 1:
            raise SpecError(f"attention: one kernel for all of {name} was learned, not {' and '.join(sorted(chosen))} together")
        if (kernel := chosen.pop()) not in kernels:
            why = program.left_out.get(kernel)
            reason = f"; {why}" if why else ""
            raise SpecError(f"attention: {kernel!r} is not one of {', '.join(kernels)}, which were learned for {name}{reason}")

    def choose_kernels(self, model: ModelSpec, resolved: AttentionSpec, chosen: AttentionSpec) -> AttentionSpec:
        has = list(dict.fromkeys(stage.attention for stage in find_program(model).stages))
        towers = [spec.tower for spec in model.attention_towers]
        lacks = {tower: has[0] for tower in towers if chosen.kernel(tower) is None and resolved.kernel(tower) not in has}
        return AttentionSpec(resolved.name, dict(resolved.kernels) | lacks)

    def attention_modes(self, model: ModelSpec, there: tuple[str, ...]) -> tuple[str, ...]:
        has = {stage.attention for stage in find_program(model).stages}
        return tuple(mode for mode in there if mode in has)

    def view_sizes(self, workload: Workload) -> tuple[Column, ...]:
        return workload.page_rule.variant(workload.page_sizes)

    def trained_sizes(self, model: ModelSpec) -> tuple[int, ...]:
        return tuple(next(stage.variant for stage in find_program(model).stages if stage.stage == "vision"))

    def record(self, tape: Tape, config: RunConfig, stage: str, is_one: bool, sizes: tuple[int, ...]) -> None:
        program = find_program(config.model)
        kernel = config.attention.kernel("decoder")
        key = stage, kernel, is_one, list(sizes)
        found = next((one for one in program.stages if (one.stage, one.attention, one.is_one, one.variant) == key), None)
        if found is None:
            raise SpecError(
                f"model.{config.model.name}: {stage} was not learned for {kernel}, {'one page' if is_one else 'several'}, {sizes}"
            )
        tape.operations += operations_of(program, found)
        used = {operation.module for operation in tape.operations}
        for module, layer, count in program.parameters:
            if program.texts[module] in used:
                place = program.texts[module], None if layer < 0 else layer
                tape.parameters[place] = count
                tape.weight_bytes[place] = count * config.itemsize

    def dimensions(
        self, config: RunConfig, stage: str, sizes: tuple[int, ...], workload: Workload, experts_hit: Column | None, step: Column
    ) -> dict[str, Column]:
        program, batch = find_program(config.model), workload.batch_size
        found = {"batch": batch}
        if stage != "decode":
            found |= workload.page_sizes
        if stage != "vision":
            context = workload.context_tokens
            found |= {"tokens": context} if stage != "decode" or program.window else {}
            found |= {"context": context + self.kept_outputs(config.model, step)} if stage == "decode" else {}
            if experts := program.experts:
                hit, hit_bytes = expected_hits(experts, batch if stage == "decode" else batch * context, experts.third, experts_hit)
                found |= {"experts_hit": hit, "expert_bytes": hit_bytes, "layer_expert_bytes": hit_bytes // experts.layers}
        return with_parts(found, program.parts)

    def kv_bytes_per_token(self, config: RunConfig) -> int:
        return find_program(config.model).kv_bytes_per_token

    def window(self, model: ModelSpec) -> int:
        return find_program(model).window

    def input_bytes(self, config: RunConfig, workload: Workload) -> Column:
        return 0

    def least_work(self, model: ModelSpec, stage: str, sizes: tuple[int, ...]) -> dict[str | None, LeastWork]:
        """Products with weights, in all layers but the last, of which some rows may be of no use, and outside of windowed attention, which
        pads; the weights of these products, each read once; in decode the cache, read once. It is less than is unavoidable."""
        program = find_program(model)
        found = next(one for one in program.stages if one.stage == stage and not one.is_one and one.variant == list(sizes))
        dims, itemsize = found.dims(), DTYPE_BYTES[program.dtype]
        held: dict[str, int] = {}
        for module, _, count in program.parameters:
            held[program.texts[module]] = held.get(program.texts[module], 0) + count
        last = {}
        for one in found.operators:
            tower = program.texts[one.module].partition(".")[0]
            last[tower] = max(last.get(tower, -1), *one.runs_in, -1)
        least: dict[str, LeastWork] = {}
        for one in found.operators:
            module, (tensor, weights) = program.texts[one.module], (dims[one.costs[0]], dims[one.costs[2]])
            if not tensor or not ((isinstance(weights, int) and weights) or one.thirds):
                continue
            layers, known = sum(layer < last[module.partition(".")[0]] for layer in one.runs_in), least.get(module, LeastWork())
            flops = known.matrix_flops + (0 if "attention" in module and module[:8] != "decoder." else tensor * layers)
            read = 0 if one.thirds else weights // itemsize * len(one.layers or [0])
            least[module] = LeastWork(flops, 0, min(known.elements + read, held.get(module, 0)))
        if stage == "decode":
            module = "decoder.attention"
            cache = Dimension("batch") * Dimension("context") * (program.kv_bytes_per_token // itemsize)
            least[module] = least[module]._replace(elements=cache + least[module].elements)
        return least


def operations_of(program: LearnedProgram, stage: LearnedStage) -> Iterable[Operation]:
    """The operators of a stage as a tape records them."""
    dims = stage.dims()
    regions: dict[tuple[int, bool], Region] = {}
    found = []
    for one in stage.operators:
        times: Dim = 1
        around: tuple[Region, ...] = ()
        if one.loop >= 0:
            times = dims[stage.loops[one.loop]]
            key = one.loop, bool(one.runs_in)
            around = (regions.setdefault(key, Region(len(regions), times, False, bool(one.runs_in))),)
        repeat, name = len(one.layers) or 1, program.texts[one.name]
        tensor, vector, *moved = (dims[number] for number in one.costs)
        costs = {"tensor_flops": tensor, "vector_flops": vector, "torch_flops": tensor}  # with formulas for all kernels
        costs |= dict(zip(TRAFFIC, moved, strict=True))
        costs = {cost: value * repeat for cost, value in costs.items()}
        part = 0.0  # of the layers with experts
        if one.thirds:
            part = repeat / program.experts.layers
            read = EXPERT_BYTES if part == 1 else LAYER_EXPERT_BYTES * repeat
            costs["weight_io_bytes"] = costs["weight_io_bytes"] + read * one.thirds
        costs |= {cost: sum(costs[addend] for addend in addends) for cost, addends in SUMS.items()}
        costs["operators"] = times * repeat
        once = tuple(dims[number] for number in one.once) if one.once else (tensor, vector, sum(moved))
        live, *other_live = (dims[number] for number in (one.live if isinstance(one.live, list) else [one.live]))
        place = program.texts[one.module], one.layers, name, one.itemsize
        found.append(Operation(*place, costs, live, once, one.runs_in, around, one.thirds * part, other_live_bytes=tuple(other_live)))
    return found
