"""Passes of an engine that serves, one at a time or as columns: what a scheduler puts together into steps.

Each is a `StageGroup`: `row(config)` has its cost columns, and `timing.expected.expected_seconds(group, config, ...)` its seconds on both
lanes. Vision of a page is `group_stages(config, page, ("vision",))`; weights are `config.model_bytes`, a token of cache
`config.kv_bytes_per_token`, a sequence's cache `config.engine_code.cached_tokens(tokens)` tokens long, in whole blocks.
"""

from dataclasses import replace

import numpy as np

from ocr_flops.cost.blocks.experts import expert_dimensions
from ocr_flops.cost.estimate import Cost
from ocr_flops.cost.run_config import RunConfig, stage_program
from ocr_flops.cost.stage_groups import StageGroup
from ocr_flops.errors import SpecError
from ocr_flops.spec.workload import Column, Workload

CHUNK = "chunk"  # as `Pipeline.record` calls it
VIEW = Workload(global_px=16)  # of which no pass here encodes any
STEP, PREFILL = "decode", "prefill"  # the stages whose host they have


def step_group(config: RunConfig, sequences: Column, context: Column) -> StageGroup:
    """One decode step: a token of each of so many sequences (all one, or all several), each attending to so many keys, its own among them.

    Raises:
        SpecError: the engine has no paged cache.
    """
    return _group(config, STEP, STEP, sequences, {"batch": sequences, "context": context, "logit_rows_before": 1}, sequences)


def chunk_group(config: RunConfig, tokens: Column, cached: Column = 0, image_tokens: Column = 0, sampled: Column = 1) -> StageGroup:
    """A chunk of one prompt's prefill: so many tokens of which the first attends to `cached` others, in a pass of its own.

    Args:
        tokens: new ones.
        cached: keys and values that are in the cache already.
        image_tokens: of the new ones, whose features are put in their place.
        sampled: rows whose logits are computed; 1 also for a chunk that is not a prompt's last (vLLM samples and discards it).

    Raises:
        SpecError: the engine has no paged cache.
    """
    values = {"batch": 1, "tokens": tokens, "context": tokens + cached, "image_tokens": image_tokens, "logit_rows": sampled}
    return _group(config, CHUNK, PREFILL, 1, values, tokens)


def profiling_peak_bytes(config: RunConfig, page: Workload, batched_tokens: int, sequences: int, images: int = 1) -> int:
    """The most activations alive while an engine profiles itself, which its cache has to leave free.

    That is the larger of encoding the images of a full step, one by one, with the tokens of all of them kept, and a pass of so many tokens
    with the logits of so many sequences, beside those image tokens.

    Args:
        page: of the images.
        batched_tokens: of the pass.
        sequences: sampled in it.
        images: encoded for it.
    """
    vision = Cost(config, replace(page, batch_size=images), ("vision",)).stage_numbers["vision"]["peak_activation_bytes"]
    group = chunk_group(config, batched_tokens, image_tokens=min(batched_tokens, images * page.image_tokens), sampled=sequences)
    return max(vision, group.row(config, columns=("peak_activation_bytes",))["peak_activation_bytes"])


def _group(config: RunConfig, recorded: str, stage: str, batch: Column, values: dict[str, Column], tokens: Column) -> StageGroup:
    """A pass over so many tokens with the values of its dimensions; a batch of 1 runs the operators of one sequence."""
    if config.engine.block_tokens is None:
        raise SpecError(f"engine: {config.engine.name!r} does not serve; chunks and steps are those of engines with a paged cache")
    spec = config.model.tower("decoder")
    values = values | expert_dimensions(spec, tokens, config.weight_itemsize) | config.engine_code.dimensions(spec, tokens)
    points = max(np.size(value) for value in values.values())
    prompt = np.maximum(values["context"] - VIEW.image_tokens, 0)
    prompt = np.broadcast_to(prompt, points).astype(np.int64) if points > 1 else int(prompt)
    program = stage_program(config, recorded, bool(np.all(np.asarray(batch) == 1)))
    return StageGroup(stage, program, replace(VIEW, prompt_tokens=prompt, output_tokens=0), values)
