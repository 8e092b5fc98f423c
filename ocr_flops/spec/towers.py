"""Dimensions of the towers, validated when they are made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from ocr_flops.errors import SpecError


@dataclass(frozen=True)
class TowerSpec:
    """Dimensions of a tower. All whole numbers are at least 1, and a width is a multiple of its heads.

    Raises:
        SpecError: naming the tower's field, its value and what is allowed.
    """

    tower: ClassVar[str]  # its name in configs
    label: ClassVar[str]
    may_be_zero: ClassVar[tuple[str, ...]] = ()
    multiples: ClassVar[tuple[tuple[str, str], ...]] = ()  # pairs of a field and one that divides it

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in self.may_be_zero else 1
            whole = isinstance(value, int) and not isinstance(value, bool)
            if field.type == "int" and not (whole and value >= least):
                raise SpecError(f"{self.tower}.{field.name}: {value!r} is not a whole number of at least {least}")
        for name, divisor in self.multiples:
            value, by = getattr(self, name), getattr(self, divisor)
            if value % by:
                raise SpecError(f"{self.tower}.{name}: {value} is not divisible by {self.tower}.{divisor} = {by}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head, where the tower has attention."""
        return self.width // self.heads


@dataclass(frozen=True)
class SamSpec(TowerSpec):
    """Dimensions of the SAM tower.

    Args:
        image_px: view size in pixels that the position tables were trained for.
        patch_px: side of a patch in pixels.
        channels: colour channels.
        width, layers, heads, mlp_width: of the transformer.
        window: side of an attention window in patches.
        global_layers: layers (from 0) that attend to the whole view.
        neck_width: channels of the neck.
        downsample_widths: output channels of the two stride-2 convolutions.
    """

    image_px: int
    patch_px: int
    channels: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    window: int
    global_layers: tuple[int, ...]
    neck_width: int
    downsample_widths: tuple[int, ...]

    tower, label, multiples = "sam", "SAM", (("width", "heads"), ("image_px", "patch_px"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not isinstance(layer, int) or not 0 <= layer < self.layers for layer in self.global_layers):
            raise SpecError(f"sam.global_layers: {list(self.global_layers)} names layers outside 0..{self.layers - 1}")
        if len(set(self.global_layers)) != len(self.global_layers):
            raise SpecError(f"sam.global_layers: {list(self.global_layers)} names a layer twice")
        if len(self.downsample_widths) != 2 or any(not isinstance(width, int) or width < 1 for width in self.downsample_widths):
            raise SpecError(f"sam.downsample_widths: {list(self.downsample_widths)} is not two whole numbers of at least 1")

    @property
    def output_width(self) -> int:
        """Channels of the feature map handed on."""
        return self.downsample_widths[-1]


@dataclass(frozen=True)
class ClipSpec(TowerSpec):
    """Dimensions of the CLIP tower.

    Args:
        image_px, patch_px: view and patch size in pixels that the position table was trained for.
        channels: colour channels of the patch convolution, which is never run.
        width, layers, heads, mlp_width: of the transformer.
    """

    image_px: int
    patch_px: int
    channels: int
    width: int
    layers: int
    heads: int
    mlp_width: int

    tower, label, multiples = "clip", "CLIP", (("width", "heads"), ("image_px", "patch_px"))


@dataclass(frozen=True)
class ProjectorSpec(TowerSpec):
    """Dimensions of the projector.

    Args:
        input_width: CLIP's width plus SAM's output channels.
        output_width: the decoder's width.
    """

    input_width: int
    output_width: int

    tower, label = "projector", "the projector"


@dataclass(frozen=True)
class DecoderSpec(TowerSpec):
    """Dimensions of the decoder.

    Args:
        width, layers, heads: of the transformer; a head is width / heads wide.
        dense_layers: how many of the first layers have a dense MLP instead of experts.
        dense_width: inner width of that MLP.
        experts, experts_per_token, expert_width: routed experts of a layer, how many a token visits, their inner width.
        shared_experts: experts every token visits, run as one MLP of shared_experts x expert_width.
        vocabulary: tokens of the embedding and of lm_head, which are not tied.
    """

    width: int
    layers: int
    heads: int
    dense_layers: int
    dense_width: int
    experts: int
    experts_per_token: int
    expert_width: int
    shared_experts: int
    vocabulary: int

    tower, label, multiples, may_be_zero = "decoder", "the decoder", (("width", "heads"),), ("dense_layers",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dense_layers > self.layers:
            raise SpecError(f"decoder.dense_layers: {self.dense_layers} exceeds decoder.layers = {self.layers}")
        if self.experts_per_token > self.experts:
            raise SpecError(f"decoder.experts_per_token: {self.experts_per_token} exceeds decoder.experts = {self.experts}")


TOWERS = {spec.tower: spec for spec in (SamSpec, ClipSpec, ProjectorSpec, DecoderSpec)}
