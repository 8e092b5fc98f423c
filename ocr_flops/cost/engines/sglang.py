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

from ocr_flops.cost import ops
from ocr_flops.cost.blocks.experts import Experts
from ocr_flops.cost.engines.remote_code import RemoteCode
from ocr_flops.cost.engines.vllm import Vllm
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape


class Sglang(Vllm, name="sglang"):
    """What SGLang executes: what vLLM does, but for what is said here."""

    named = RemoteCode.named
    image_views = ("tiles", "global")
    narrows_clip = False

    def receive_images(self, tape: Tape, pixels: Tensor, *tiles: Tensor) -> None:
        """Both are copied into one tensor each."""
        for one in (pixels, *tiles):
            tape.free(tape(ops.copy("cat", one)))

    def hand_on_map(self, tape: Tape, x: Tensor) -> tuple[Tensor, ...]:
        """It clones the map between the convolutions."""
        return x, tape(ops.copy("clone", x))

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
