"""Inputs of the right shapes: views of a real image cut as the published code cuts them, or random pixels; token ids; image features."""

from __future__ import annotations

from typing import Any

import torch

from ocr_flops.measure.protocol import Point, Request
from ocr_flops.measure.worker.machine import DTYPES


def views(point: Point, request: Request, device: str) -> dict[str, Any]:
    """Arguments of `get_image_features`: global views, tiles and their grid for a batch of equal pages.

    Args:
        point: the workload.
        request: channels of SAM, dtype, and the image of a page; without it random pixels (never zeros: the published code skips an empty
            page).
        device: of the pixels.
    """
    channels, dtype, image = request.towers["sam"]["channels"], DTYPES[request.dtype], request.image
    batch, tiles = point.batch_size, point.tiles
    if image is None or device == "meta":

        def pixels(count: int, px: int) -> torch.Tensor:
            return torch.randn(count, channels, px, px, device=device).to(dtype)

        page, cuts = pixels(batch, point.global_px), pixels(batch * tiles, point.tile_px) if tiles else None
    else:
        page, cuts = (None if part is None else part.repeat(batch, 1, 1, 1).to(device, dtype) for part in cut_views(point, image))
    if not tiles:
        return {"pixel_values": page}
    grid = [[point.columns, point.rows]] * batch
    return {"pixel_values": page, "pixel_values_local": cuts, "num_local_patches": [tiles] * batch, "patches_grid": grid}


def cut_views(point: Point, path: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Global view [1, 3, px, px] and tiles [tiles, 3, px, px] of an image, resized, padded and cut as the published code's `infer` does.

    Without tiles a view of up to 640 px is the stretched page; a larger one, and every page with tiles, is padded with mid-grey.
    """
    import numpy as np
    from PIL import Image, ImageOps

    def tensor(picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)

    with Image.open(path) as opened:
        page = ImageOps.exif_transpose(opened).convert("RGB")
    px = point.global_px
    stretches = not point.tile_px and px <= 640
    whole = page.resize((px, px)) if stretches else ImageOps.pad(page, (px, px), color=(127, 127, 127))
    if not point.tiles:
        return tensor(whole)[None], None
    tile, columns, rows = point.tile_px, point.columns, point.rows
    stretched = page.resize((tile * columns, tile * rows))
    boxes = [(column * tile, row * tile, (column + 1) * tile, (row + 1) * tile) for row in range(rows) for column in range(columns)]
    return tensor(whole)[None], torch.stack([tensor(stretched.crop(box)) for box in boxes])


def features(point: Point, request: Request, device: str) -> list[torch.Tensor]:
    """Random image features of each page, [image_tokens, width], for a prefill without vision."""
    width = request.towers["projector"]["output_width"]
    return [torch.randn(point.image_tokens, width, device=device).to(DTYPES[request.dtype]) for _ in range(point.batch_size)]


def step_ids(point: Point, step: int, image_token: int, device: str) -> torch.Tensor:
    """Ids [batch, 1] of a decode step: text that differs from sequence to sequence and from step to step, so that its routing does."""
    first = step * point.batch_size
    return 2 + torch.arange(first, first + point.batch_size, device=device).unsqueeze(1) % (image_token - 2)


def token_ids(point: Point, image_token: int, device: str) -> torch.Tensor:
    """Ids [batch, context]: the image's placeholders, then text."""
    row = [image_token] * point.image_tokens + [2 + i % 90 for i in range(point.prompt_tokens)]
    return torch.tensor([row] * point.batch_size, device=device)
