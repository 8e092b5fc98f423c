"""The projector: one linear layer from the concatenated CLIP and SAM features to the decoder's width."""

from __future__ import annotations

from dataclasses import dataclass

from ocr_flops import ops
from ocr_flops.ops import Tensor
from ocr_flops.specs import positive
from ocr_flops.tape import Tape


@dataclass(frozen=True)
class Spec:
    """Dimensions of the projector.

    Args:
        input_width: CLIP's width plus SAM's output channels.
        output_width: the decoder's width.
    """

    input_width: int
    output_width: int

    tower = "projector"

    def __post_init__(self) -> None:
        positive(self, "projector", "input_width", "output_width")


def run(tape: Tape, spec: Spec, clip_states: Tensor, feature_map: Tensor) -> Tensor:
    """Records the concatenation of both encoders' features and the linear layer.

    Args:
        clip_states: [images, q² + 1, clip width], class token first; freed here.
        feature_map: SAM's [images, channels, q, q]; freed here.

    Returns:
        features [images, q², output_width]; transformers' code keeps the concatenation alive beside them.
    """
    images, tokens, width = clip_states.shape
    with tape.module("projector"):
        joined = tape.then_free(
            ops.copy("cat", clip_states.view(images, tokens - 1, width), feature_map, shape=(images, tokens - 1, spec.input_width)),
            clip_states,
            feature_map,
        )
        return tape(ops.linear(joined, tape.weight(spec.output_width, spec.input_width), tape.weight(spec.output_width)))
