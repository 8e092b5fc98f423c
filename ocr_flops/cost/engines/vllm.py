"""vLLM, as read in its sources (main branch, 2026): nothing here runs it.

What it does otherwise than transformers' class, and where that is read (paths in github.com/vllm-project/vllm; commits of the files read:
deepseek_ocr.py 029329a, deepencoder.py 0fd1570, clip.py 030ea52, deepseek_v2.py 002d607, grouped_topk_router.py 055e47c):

- vision (vllm/model_executor/models/deepseek_ocr.py, `_pixel_values_to_embedding`): image by image, the global view first, then its tiles
  as one batch. SAM (models/deepencoder.py) is the published code's, with LayerNorm2d in elementwise operators and PyTorch's attention with
  the bias in memory. CLIP (models/clip.py) has one matrix product for query, key and value, FlashAttention and a fused quick GELU.
  With `packs_images` (pull request 43586, off by default) the global views of a batch are one graph, their tiles another; the budgets that
  these are filled up to are left out.
- decoder (models/deepseek_v2.py, `DeepseekAttention`, `DeepseekV2MoE`): one product for query, key and value, another for gate and up; the
  sum with the residual and RMSNorm as one kernel; rotary embedding in place with a table of cosines and sines; keys and values written to
  blocks of the cache, which FlashAttention reads (v1/attention/backends/flash_attn.py); in decode it splits the keys, and a second kernel
  combines the parts.
- experts (layers/fused_moe): the router in the model's precision; top 6 by `grouped_topk`, which torch.compile makes of some eight kernels;
  rows sorted into blocks of 16 up to as many tokens as experts, else of 64 (fused_moe.py, `get_default_config`; tuned files for some GPUs
  choose others); two Triton products which multiply whole blocks and read the experts hit; a weighted sum. One or two tokens skip the
  sorting, for a kernel that fills one number. Shared experts may run beside the routed ones on a second stream: here they run after them.
- logits of the sampled rows, cast to fp32, and the most likely token (v1/sample/sampler.py at temperature 0).
- fp8 (layers/quantization/fp8.py): weights of the linear layers of CLIP and decoder and of the experts with one scale a matrix, inputs
  quantised with one scale a row, here by a kernel of its own, which torch.compile may fuse with the one before; not SAM, the router,
  embeddings and logits. A cache in fp8 halves its bytes; attention still multiplies in the model's precision.
- embeddings of tokens are computed outside the graph and copied into its input, also in decode (v1/worker/gpu_model_runner.py).
"""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np

from ocr_flops.cost import ops
from ocr_flops.cost.blocks import fused
from ocr_flops.cost.blocks.experts import Experts, expected_padded_rows
from ocr_flops.cost.blocks.passes import ForwardPass
from ocr_flops.cost.engines.base import Engine, Tensors
from ocr_flops.cost.engines.remote_code import RemoteVision
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape
from ocr_flops.cost.towers.fused_decoder import FusedDecoder
from ocr_flops.spec.serving import ServingSpec
from ocr_flops.spec.specs import EngineSpec, HardwareSpec
from ocr_flops.spec.towers import DecoderSpec
from ocr_flops.spec.workload import Column

GIB = 2**30
SMALL_BLOCK, BLOCK = 16, 64  # rows of a block of one expert, up to as many tokens as experts, and from there on


class Vllm(RemoteVision, name="vllm"):
    """What vLLM executes. Vision is the published code's, but for what is said here.

    Attributes:
        mixes_prefill: whether prompts share a step with running sequences; otherwise those wait while prompts have a step of their own.
        cache_dtype: what its command line calls a cache in fp8.
    """

    named = frozenset({"side biases", "upcast positions", "encoder outputs"})
    experts = "fused"
    image_views = ("global", "tiles")
    decoder = FusedDecoder
    narrows_clip = True  # fp8 weights are CLIP's too
    mixes_prefill = True
    cache_dtype = "fp8"
    _spec: EngineSpec | None = None

    def with_options(self, spec: EngineSpec) -> Engine:
        """The engine with the precisions and the block size that a config sets."""
        engine = copy(self)
        engine._spec = spec
        return engine

    @property
    def _narrow(self) -> int | None:
        """Bytes per element of weights in fp8; None where they are in the run's precision."""
        return 1 if self._spec and self._spec.weights else None

    def cache_itemsize(self, tape: Tape) -> int:
        """Bytes per element of the cache."""
        return 1 if self._spec and self._spec.cache else tape.itemsize

    def cached_tokens(self, tokens: Column) -> Column:
        """Whole blocks."""
        block = (self._spec and self._spec.block_tokens) or 1
        return -(-tokens // block) * block

    def dimensions(self, spec: DecoderSpec, tokens: Column) -> dict[str, Column]:
        """Rows of a layer's routed experts, each expert's filled up to whole blocks."""
        block = np.where(np.asarray(tokens) > spec.experts, BLOCK, SMALL_BLOCK)
        return {fused.PADDED_ROWS_NAME: expected_padded_rows(spec, tokens, block)}

    # What serves it

    def serving_options(self, hardware: HardwareSpec) -> dict[str, Any]:
        """What a server chooses for itself on a device, by names of `ServingSpec`.

        8192 tokens and 1024 sequences from 70 GiB on, except on A100, else 2048 and 256 (`EngineArgs.get_batch_defaults` of
        vllm/engine/arg_utils.py, OPENAI_API_SERVER); 0.92 of the memory (`CacheConfig` of vllm/config/cache.py); one thread that cuts
        pages (`renderer_num_workers` of vllm/config/model.py).
        """
        large = hardware.memory_bytes >= 70 * GIB and not hardware.name.startswith("a100")
        tokens, sequences = (8192, 1024) if large else (2048, 256)
        return {"max_num_batched_tokens": tokens, "max_num_seqs": sequences, "gpu_memory_utilization": 0.92}

    def serving_command(self, options: ServingSpec, context: int) -> list[str]:
        """What to type, part by part, for a server with these options and so many tokens of context."""
        parts = [
            "vllm serve deepseek-ai/DeepSeek-OCR",
            f"--max-num-batched-tokens {options.max_num_batched_tokens}",
            f"--max-num-seqs {options.max_num_seqs}",
            f"--gpu-memory-utilization {options.gpu_memory_utilization:g}",
            f"--block-size {options.block_size}",
            f"--max-model-len {context}",
            "--no-enable-prefix-caching --mm-processor-cache-gb 0",
        ]
        if not options.chunked_prefill:
            parts.append("--no-enable-chunked-prefill")
        if options.ngram_ban:
            parts.append("--logits-processors vllm.model_executor.models.deepseek_ocr:NGramPerReqLogitsProcessor")
        if options.preprocess_workers > 1:
            parts.append(f"--renderer-num-workers {options.preprocess_workers}")
        return parts

    # Vision

    def clip_linear(self, tape: Tape, x: Tensor, features_out: int) -> Tensor:
        """In fp8 where weights are."""
        return fused.linear(tape, x, features_out, True, self._narrow if self.narrows_clip else None)

    def quick_gelu(self, tape: Tape, x: Tensor) -> Tensor:
        """One kernel: two products and a sigmoid."""
        flops = (ops.COMPOSITES["sigmoid"] + 2) * x.elements
        return tape.then_free(ops.Operator("gelu_quick", (ops.new(x.shape, x.itemsize),), (x,), vector_flops=flops), x)

    def receive_images(self, tape: Tape, pixels: Tensor, *tiles: Tensor) -> None:
        """The host reads the sum of all pixels."""
        tape.free(tape(ops.reduction("sum", pixels, ())))
        tape.synchronise()

    # The language model

    def insert_features(self, tape: Tape, forward: ForwardPass, embedded: Tensor, features: Tensor) -> Tensors:
        """In place, for all sequences at once."""
        places = ops.new((embedded.shape[0], 1), 1)
        tape(ops.in_place("masked_scatter_", features, places, features))
        return embedded, features

    def decoder_linear(self, tape: Tape, x: Tensor, features_out: int) -> Tensor:
        """A linear layer of the decoder, which has no bias; x stays alive."""
        return fused.linear(tape, x, features_out, False, self._narrow)

    def combine_splits(self, tape: Tape, out: Tensor) -> Tensor:
        """Decode attends to parts of the keys at once; a second kernel combines them, at least one part in fp32 a row."""
        parts = ops.new(out.shape, 4)
        return tape.then_free(ops.copy("combine", parts, itemsize=out.itemsize), out)

    def run_fused_experts(self, tape: Tape, sizes: Experts, x: Tensor, weights: Tensor, index: Tensor, is_long: bool) -> Tensor:
        """The fused kernels; sorting takes one for few rows, two for many."""
        return fused.run_experts(tape, sizes, x, weights, index, 2 if is_long else 1, self._narrow)

    def copy_embeddings(self, tape: Tape, embedded: Tensor) -> None:
        """Into the buffer that the graph reads."""
        tape(ops.in_place("copy_", embedded, embedded))

    def choose_experts(self, tape: Tape, sizes: Experts, logits: Tensor) -> tuple[Tensor, Tensor]:
        """`grouped_topk` with one group: softmax with its maximum, the best group, a mask of it, the best experts, and two casts."""
        rows, best = logits.shape[0], (logits.shape[0], sizes.per_token)
        softmax = ops.softmax(logits)
        softmax.outputs = (*softmax.outputs, ops.new((rows, 1), logits.itemsize))
        scores = tape.then_free(softmax, logits)
        (group,) = softmax.outputs[1:]
        top = ops.reduction("topk", group, (rows, 1))
        top.outputs = (*top.outputs, ops.new((rows, 1), ops.INDEX_BYTES))
        tape(top)
        mask = tape(ops.create("zeros_like", (rows, 1), logits.itemsize))
        tape(ops.in_place("scatter_", mask, top.outputs[1]))
        masked = tape.then_free(ops.elementwise("masked_fill", scores, mask), scores, group, mask, *top.outputs)
        top = ops.reduction("topk", masked, best)
        top.outputs = (*top.outputs, ops.new(best, ops.INDEX_BYTES))
        tape(top)
        tape.free(masked)
        weights = tape(ops.copy("_to_copy", top.outputs[0], itemsize=4))
        index = tape(ops.copy("_to_copy", top.outputs[1], itemsize=4))
        tape.free(*top.outputs)
        return weights, index
