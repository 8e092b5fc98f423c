"""What one pass through a tower runs over."""

from typing import NamedTuple

from ocr_flops.cost.polynomial import Dim


class View(NamedTuple):
    """One pass of the vision towers over square views.

    Args:
        px: side in pixels.
        images: views in the pass.
        is_one: whether that is a single view, which spares some copies.
    """

    px: int
    images: Dim
    is_one: bool


class Grid(NamedTuple):
    """What vision attention runs on: `batch` squares of `side` x `side` patches, and whether batch is one."""

    batch: Dim
    side: int
    is_one: bool


class ForwardPass(NamedTuple):
    """One forward pass of the language model.

    Args:
        batch: sequences.
        tokens: new tokens a sequence: the context in prefill, 1 in decode.
        context: keys every new token attends to, itself included.
        logit_rows: positions a sequence for which logits are computed.
        is_one: whether batch is one, which spares some copies.
        is_prefill: prefill (empty cache) or a decode step.
        cache: "dynamic" (grows by concatenation) or "static" (written in place).
    """

    batch: Dim
    tokens: Dim
    context: Dim
    logit_rows: Dim
    is_one: bool
    is_prefill: bool
    cache: str
