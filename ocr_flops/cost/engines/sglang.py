"""SGLang, as read in its sources (main branch, 2026): nothing here runs it.

What it does otherwise than vLLM, and where that is read (paths in github.com/sgl-project/sglang; commits of the files read:
deepseek_ocr.py 092e3a4, deepseek.py 041d7c5):

- vision (python/sglang/srt/models/deepseek_ocr.py): images and tiles are first put together; tiles are encoded before the global view;
  CLIP is the published code's, with PyTorch's attention and a scripted quick GELU; SAM's map is cloned between its last convolutions.
  fp8 weights are the decoder's alone.
- decoder (srt/models/deepseek.py): token embeddings are a part of the graph; the best experts are chosen by one kernel
  (srt/layers/moe/topk.py, `fused_topk`); the cache has pages of one token unless set otherwise (srt/server_args.py, `page_size`).
"""

from __future__ import annotations

from typing import Any

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.experts import Experts
from ocr_flops.cost.engines.remote_code import RemoteCode
from ocr_flops.cost.engines.vllm import GIB, Vllm
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.serving import ServingSpec
from ocr_flops.spec.specs import HardwareSpec


class Sglang(Vllm, name="sglang"):
    """What SGLang executes: what vLLM does, but for what is said here."""

    named, hand_on_map = RemoteCode.named, RemoteCode.hand_on_map
    image_views = ("tiles", "global")
    narrows_clip = False
    mixes_prefill = False
    cache_dtype = "fp8_e4m3"

    def serving_options(self, hardware: HardwareSpec) -> dict[str, Any]:
        """Prefills of 2048 tokens below 35 GiB, 4096 below 60, 8192 below 160 and 16384 from there on; of the memory what is left after
        512 MiB, 1.5 MiB for each of these tokens and 2 MiB for each sequence of its graphs, at least 10 GiB above 60 GiB, times 0.95 for a
        vision tower (`_handle_gpu_memory_settings` and `adjust_mem_fraction_for_vlm` of sglang/srt/server_args.py). N-grams are banned
        where a request asks for it only.
        """
        memory = hardware.memory_bytes / GIB
        tokens = next((size for limit, size in ((35, 2048), (60, 4096), (160, 8192)) if memory < limit), 16384)
        graphs = next((size for limit, size in ((20, 8), (35, 24), (60, 32), (160, 256)) if memory < limit), 512)
        reserved = (512 + 1.5 * tokens + 2 * graphs + 128) / 1024
        share = round(0.95 * (1 - (max(reserved, 10) if memory > 60 else reserved) / memory), 3)
        return {"max_num_batched_tokens": tokens, "max_num_seqs": 2048, "gpu_memory_utilization": share, "ngram_ban": False}

    def serving_command(self, options: ServingSpec, context: int) -> list[str]:
        """Of `sglang.launch_server`; chunked prefill is turned off by a size of -1."""
        return [
            "python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-OCR --trust-remote-code",
            f"--mem-fraction-static {options.gpu_memory_utilization:g}",
            f"--chunked-prefill-size {options.max_num_batched_tokens if options.chunked_prefill else -1}",
            f"--max-running-requests {options.max_num_seqs}",
            f"--context-length {context}",
            "--disable-radix-cache",
        ]

    def receive_images(self, tape: Tape, pixels: Tensor, *tiles: Tensor) -> None:
        """Both are copied into one tensor each."""
        for one in (pixels, *tiles):
            tape.free(tape(ops.copy("cat", one)))

    def join_tokens(self, tape: Tape, tokens: Tensor) -> None:
        """Into one tensor."""
        tape.free(tape(ops.copy("cat", tokens)))

    def copy_embeddings(self, tape: Tape, embedded: Tensor) -> None:
        """No copy."""

    def choose_experts(self, tape: Tape, sizes: Experts, logits: Tensor) -> tuple[Tensor, Tensor]:
        """One kernel."""
        best = (logits.shape[0], sizes.per_token)
        chosen = ops.softmax(logits)
        chosen.name, chosen.outputs = "topk_softmax", (ops.new(best, 4), ops.new(best, 4))
        tape.then_free(chosen, logits)
        weights, index = chosen.outputs
        return weights, index
