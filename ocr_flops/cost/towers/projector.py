"""The projector: one linear layer from the concatenated CLIP and SAM features to the decoder's width."""

from ocr_flops.cost import ops
from ocr_flops.cost.engines.base import Engine
from ocr_flops.cost.ops import Tensor
from ocr_flops.cost.tape import Tape
from ocr_flops.spec.towers import ProjectorSpec


def record_projector(
    tape: Tape, spec: ProjectorSpec, engine: Engine, clip_states: Tensor, feature_map: Tensor, replaced: tuple[Tensor, ...] = ()
) -> Tensor:
    """Records the concatenation of both encoders' features and the linear layer.

    Args:
        clip_states: [images, q² + 1, clip width], class token first.
        feature_map: SAM's [images, channels, q, q].
        replaced: what else ends its life once both are concatenated.

    Returns:
        features [images, q², output_width]. What the engine's code holds by a name lives on.
    """
    images, tokens, width = clip_states.shape
    with tape.module("projector"):
        states = clip_states.view(images, tokens - 1, width)
        joined = tape.then_free(ops.copy("cat", states, feature_map, shape=(images, tokens - 1, spec.input_width)), *replaced)
        engine.release(tape, "encoder outputs", clip_states, feature_map)
        features = tape(ops.linear(joined, tape.weight(spec.output_width, spec.input_width), tape.weight(spec.output_width)))
        engine.release(tape, "projector input", joined)
        return features
