"""A page cut into views as the published code does it: stretched or padded, tiles row by row."""

import pytest
import torch
from PIL import Image

from ocr_flops.measure.protocol import Request
from ocr_flops.measure.worker.inputs import Point, cut_views, features, token_ids, views

GREY = 127 / 127.5 - 1


def point(global_px, tile_px=0, columns=1, rows=1, batch_size=1):
    return Point(global_px, tile_px, columns, rows, 5, 1, batch_size)


@pytest.fixture
def save(tmp_path):
    def saved(image, name="page.png", **options):
        image.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return saved


def quarters(width=400, height=200):
    """Red, green over blue, white."""
    page = Image.new("RGB", (width, height))
    colours = ["red", "lime", "blue", "white"]
    for number, colour in enumerate(colours):
        row, column = divmod(number, 2)
        page.paste(colour, (width // 2 * column, height // 2 * row, width // 2 * (column + 1), height // 2 * (row + 1)))
    return page


def centre(view):
    return view[:, view.shape[1] // 2, view.shape[2] // 2].tolist()


@pytest.mark.parametrize("px", [512, 640])
def test_small_views_are_the_stretched_page(save, px):
    whole, tiles = cut_views(point(px), save(Image.new("RGB", (400, 100), "white")))
    assert whole.shape == (1, 3, px, px) and tiles is None
    assert (whole == 1).all()  # no padding anywhere


@pytest.mark.parametrize("px", [1024, 1280])
def test_large_views_are_padded_with_mid_grey(save, px):
    whole, tiles = cut_views(point(px), save(Image.new("RGB", (400, 100), "white")))
    assert whole.shape == (1, 3, px, px) and tiles is None
    band = px // 4
    top = (px - band) // 2
    assert torch.allclose(whole[0, :, :top], torch.tensor(GREY))
    assert torch.allclose(whole[0, :, top + band :], torch.tensor(GREY))
    assert (whole[0, :, top : top + band] == 1).all()


def test_a_page_with_tiles_is_padded_whatever_its_size(save):
    whole, _ = cut_views(point(512, 128, 2, 1), save(Image.new("RGB", (400, 100), "white")))
    assert torch.allclose(whole[0, :, 0], torch.tensor(GREY))


def test_an_untiled_page_of_a_tiled_mode_is_padded(save):
    whole, tiles = cut_views(point(512, 128), save(Image.new("RGB", (400, 100), "white")))
    assert tiles is None
    assert torch.allclose(whole[0, :, 0], torch.tensor(GREY))


def test_tiles_are_cut_row_by_row_from_the_stretched_page(save):
    _, tiles = cut_views(point(1024, 128, 2, 2), save(quarters()))
    assert tiles.shape == (4, 3, 128, 128)
    assert [centre(tile) for tile in tiles] == [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]]


def test_columns_are_across_and_rows_down(save):
    page = Image.new("RGB", (300, 100), "black")
    page.paste("white", (200, 0, 300, 100))
    _, across = cut_views(point(1024, 64, 3, 1), save(page))
    assert [centre(tile)[0] for tile in across] == [-1, -1, 1]
    _, down = cut_views(point(1024, 64, 1, 2), save(page))
    assert torch.equal(down[0], down[1])


def test_the_camera_orientation_is_applied(save):
    page = Image.new("RGB", (100, 200), "black")
    page.paste("white", (0, 0, 100, 100))  # white above black as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    _, tiles = cut_views(point(1024, 64, 2, 1), save(page, "page.jpg", exif=exif, quality=100))
    assert [round(centre(tile)[0]) for tile in tiles] == [-1, 1]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_any_colour_mode_becomes_rgb(save, mode):
    whole, _ = cut_views(point(512), save(Image.new("RGB", (40, 40), "white").convert(mode)))
    assert whole.shape[1] == 3 and (whole == 1).all()


def asked(**options):
    return Request({"sam": {"channels": 3}, "projector": {"output_width": 96}}, [], **options)


def test_views_of_a_batch(save):
    path = save(quarters())
    arguments = views(point(256, 64, 2, 1, batch_size=3), asked(dtype="fp32", image=path), "cpu")
    assert arguments["pixel_values"].shape == (3, 3, 256, 256)
    assert arguments["pixel_values_local"].shape == (6, 3, 64, 64)
    assert (arguments["num_local_patches"], arguments["patches_grid"]) == ([2, 2, 2], [[2, 1]] * 3)
    assert torch.equal(arguments["pixel_values"][0], arguments["pixel_values"][2])
    assert torch.equal(arguments["pixel_values_local"][0], arguments["pixel_values_local"][4])


def test_without_a_page_pixels_are_random_and_never_zero():
    arguments = views(point(64, batch_size=2), asked(), "cpu")
    assert set(arguments) == {"pixel_values"}
    assert arguments["pixel_values"].dtype == torch.bfloat16
    assert arguments["pixel_values"].abs().sum() > 0


def test_on_meta_the_page_is_not_read():
    assert views(point(64), asked(image="/no/such/page.png"), "meta")["pixel_values"].is_meta


def test_token_ids_hold_a_place_for_every_image_token():
    ids = token_ids(point(256, 128, 2, 1, batch_size=2), 999, "cpu")
    image_tokens = 4 * 5 + 1 + 2 * 5
    assert ids.shape == (2, image_tokens + 5)
    assert (ids[:, :image_tokens] == 999).all() and (ids[:, image_tokens:] != 999).all()
    assert [row.shape for row in features(point(256, 128, 2, 1, batch_size=2), asked(), "meta")] == [(image_tokens, 96)] * 2
