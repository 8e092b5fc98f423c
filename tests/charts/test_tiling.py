"""The tiling picture shows the tiles that there are."""

import pytest

from ocr_flops import Workload
from ocr_flops.charts import tiling_picture
from tests.support.drawing import headline, texts


def test_the_drawn_tiles_are_the_tiles():
    picture = tiling_picture(Workload.from_grid(4, 5))
    assert sum(box["what"].startswith("tile ") for box in picture.datasets["boxes"]) == 20 == len(picture.datasets["tokens"])
    assert len(picture.datasets["lines"]) == 3 + 4 and "(10·5)·(10·4 + 1) = 2,050 tokens" in texts(picture)
    assert "4 × 5 tiles and a global view: 2,323 image tokens" in headline(picture)


def test_a_grid_too_large_to_draw_is_one_box():
    picture = tiling_picture(Workload.from_grid(100, 100))
    assert len(picture.datasets["boxes"]) < 5 and "100 × 100 tiles, 640 px each" in texts(picture)


@pytest.mark.parametrize(("mode", "padded"), [("tiny", False), ("small", False), ("base", True), ("large", True)])
def test_a_small_view_is_stretched_and_a_large_one_padded(mode, padded):
    boxes = tiling_picture(Workload.from_image(1654, 2339, mode)).datasets["boxes"]
    assert any("padding" in box["what"] for box in boxes) is padded


def test_a_small_page_says_why_it_is_not_tiled():
    assert "Neither side is above 640 px" in headline(tiling_picture(Workload.from_image(640, 400, "gundam")))
