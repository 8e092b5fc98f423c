"""Dimensions of the towers, validated when they are made."""

from dataclasses import dataclass, fields
from typing import ClassVar

from ocr_flops.errors import SpecError

MOST_LAYERS, MOST_WIDTH = 1_000, 2**24  # generous: what a typing error exceeds


class TowerSpec:
    """Dimensions of a tower. Whole numbers are in a generous range, and a width is a multiple of its heads; else it is a SpecError."""

    tower: ClassVar[str]  # its name in configs
    label: ClassVar[str]
    may_be_zero: ClassVar[tuple[str, ...]] = ()
    multiples: ClassVar[tuple[tuple[str, str], ...]] = ()  # pairs of a field and one that divides it

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 0 if field.name in self.may_be_zero else 1
            most = MOST_LAYERS if field.name == "layers" else MOST_WIDTH
            if field.type is int and not least <= getattr(self, field.name) <= most:
                self._refuse(field.name, f"is not a whole number from {least} to {most}")
        for name, divisor in self.multiples:
            if getattr(self, name) % getattr(self, divisor):
                self._refuse(name, f"is not divisible by {self.tower}.{divisor} = {getattr(self, divisor)}")

    def _refuse(self, name: str, reason: str) -> None:
        value = getattr(self, name)
        raise SpecError(f"{self.tower}.{name}: {list(value) if isinstance(value, tuple) else value!r} {reason}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head, where the tower has attention."""
        return self.width // self.heads


@dataclass(frozen=True)
class EncoderSpec(TowerSpec):
    """Dimensions of a vision transformer."""

    image_px: int  # side of the view that the position tables were trained for
    patch_px: int
    channels: int  # colours
    width: int
    layers: int
    heads: int
    mlp_width: int

    multiples = (("width", "heads"), ("image_px", "patch_px"))


@dataclass(frozen=True)
class SamSpec(EncoderSpec):
    """Dimensions of the SAM tower."""

    window: int  # side of an attention window in patches
    global_layers: tuple[int, ...]  # layers (from 0) that attend to the whole view
    neck_width: int  # channels of the neck
    downsample_widths: tuple[int, ...]  # output channels of the two stride-2 convolutions

    tower, label = "sam", "SAM"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0 <= layer < self.layers for layer in self.global_layers):
            self._refuse("global_layers", f"names layers outside 0..{self.layers - 1}")
        if len(set(self.global_layers)) != len(self.global_layers):
            self._refuse("global_layers", "names a layer twice")
        if len(self.downsample_widths) != 2 or min(self.downsample_widths) < 1:
            self._refuse("downsample_widths", "is not two whole numbers of at least 1")

    @property
    def output_width(self) -> int:
        """Channels of the feature map handed on."""
        return self.downsample_widths[-1]


@dataclass(frozen=True)
class ClipSpec(EncoderSpec):
    """Dimensions of the CLIP tower, whose patch convolution is never run."""

    tower, label = "clip", "CLIP"


@dataclass(frozen=True)
class ProjectorSpec(TowerSpec):
    """Dimensions of the projector."""

    input_width: int  # CLIP's width plus SAM's output channels
    output_width: int  # the decoder's width

    tower, label = "projector", "the projector"


@dataclass(frozen=True)
class DecoderSpec(TowerSpec):
    """Dimensions of the decoder."""

    width: int
    layers: int
    heads: int
    dense_layers: int  # how many of the first layers have a dense MLP instead of experts
    dense_width: int  # inner width of that MLP
    experts: int  # routed experts of a layer
    experts_per_token: int  # routed experts that a token visits
    expert_width: int  # inner width of an expert
    shared_experts: int  # experts every token visits, run as one MLP of shared_experts x expert_width
    vocabulary: int  # tokens of the embedding and of lm_head, which are not tied

    tower, label, multiples, may_be_zero = "decoder", "the decoder", (("width", "heads"),), ("dense_layers",)

    @property
    def sparse_layers(self) -> int:
        """Layers that have experts."""
        return self.layers - self.dense_layers

    def __post_init__(self) -> None:
        super().__post_init__()
        for part, whole in (("dense_layers", "layers"), ("experts_per_token", "experts")):
            if getattr(self, part) > getattr(self, whole):
                self._refuse(part, f"exceeds decoder.{whole} = {getattr(self, whole)}")


@dataclass(frozen=True)
class LearnedTower:
    """A tower of a learned model: its program knows what it does, so that only the attention kernel is chosen for it."""

    tower: str
    label: str
    heads: int = 1  # it has some


LEARNED_TOWERS = (LearnedTower("vision", "the vision encoder"), LearnedTower("decoder", "the decoder"))
TOWERS = {spec.tower: spec for spec in (SamSpec, ClipSpec, ProjectorSpec, DecoderSpec)}
TOWER_NAMES = tuple(dict.fromkeys((*TOWERS, *(spec.tower for spec in LEARNED_TOWERS))))
