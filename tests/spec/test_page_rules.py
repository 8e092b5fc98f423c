"""What models make of a page, beside the image processors themselves: built with the published settings, their pixel work replaced by sizes."""

import importlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import load_model, names
from ocr_flops.spec.page_rules import LongestEdge, SmartResize, TilesBesideView, TilesWithThumbnail
from ocr_flops.spec.run_spec import load_run

MODELS = [name for name in names("model") if load_model(name).learned]
TILED = {
    "granite_docling": ("granite_docling", "GraniteDocling", {}),
    "qianfan_ocr": ("got_ocr2", "GotOcr2", {"size": {"height": 448, "width": 448}, "crop_to_patches": True}),
    "got_ocr2": ("got_ocr2", "GotOcr2", {"size": {"height": 1024, "width": 1024}}),
    "deepseek_ocr2": ("deepseek_ocr2", "DeepseekOcr2", {}),
}
RESIZED = {
    "glm_ocr": ("glm46v", "Glm46V", {"size": {"shortest_edge": 12544, "longest_edge": 9633792}}),
    "qwen2_5_vl": ("qwen2_vl", "Qwen2VL", {"size": {"shortest_edge": 3136, "longest_edge": 12845056}}),
    "paddleocr_vl": ("paddleocr_vl", "PaddleOCRVL", {"size": {"shortest_edge": 147384, "longest_edge": 2822400}}),
    "lighton_ocr": ("pixtral", "Pixtral", {"size": {"longest_edge": 1540}, "patch_size": {"height": 14, "width": 14}}),
}


def pages(count):
    """Sizes of pages: ordinary ones, tiny ones, strips, and sizes at and beside multiples of patches and tiles."""
    rng = np.random.default_rng(14)
    plain = rng.integers(20, 6000, (count, 2))
    tiny, strips = rng.integers(1, 90, (count // 8, 2)), np.stack([rng.integers(8, 60, count // 8), rng.integers(500, 9000, count // 8)], 1)
    edges = rng.integers(1, 20, (count // 2, 2)) * rng.choice([14, 28, 448, 512, 640, 768], (count // 2, 1)) + rng.integers(
        -1, 2, (count // 2, 2)
    )
    together = np.concatenate([plain, tiny, strips, strips[:, ::-1], np.maximum(edges, 1)])
    return together[rng.permutation(len(together))[:count]]


def image_processor(module, stem, settings):
    """The class's image processor over arrays without pixels: it chooses sizes, cuts and counts; nothing is resampled."""
    cls = getattr(importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}"), f"{stem}ImageProcessorPil")
    return cls(**settings)


@pytest.fixture
def without_pixels(monkeypatch):
    """Images as broadcast zeros, so that ten thousand pages take seconds."""
    from transformers.image_processing_backends import PilBackend

    def blank(self, image, size, *_, **__):
        return np.broadcast_to(np.uint8(0), (3, size.height, size.width))

    monkeypatch.setattr(PilBackend, "resize", blank)
    for same in ("rescale", "normalize"):
        monkeypatch.setattr(PilBackend, same, lambda self, image, *_, **__: image)


COUNTS = [150, pytest.param(10_000, marks=pytest.mark.verification)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", RESIZED)
def test_a_resized_page_is_the_processors(name, count):
    rule, (module, stem, settings) = load_model(name).learned.page_rule, RESIZED[name]
    processor = image_processor(module, stem, settings)
    real = importlib.import_module(f"transformers.models.{module}.image_processing_pil_{module}")
    checked = 0
    for width, height in pages(count).tolist():
        if name == "lighton_ocr":
            image = np.broadcast_to(np.uint8(0), (3, height, width))
            sides = real.get_resize_output_image_size(image, (1540, 1540), (14, 14), "channels_first")
        else:
            size = {"min_pixels": processor.size.shortest_edge, "max_pixels": processor.size.longest_edge, "factor": 28}
            frames = {"num_frames": 2, "temporal_factor": 2} if name == "glm_ocr" else {}
            try:
                sides = real.smart_resize(height=height, width=width, **size, **frames)
            except ValueError:
                with pytest.raises(SpecError, match="refused by the model's processor"):
                    rule.sizes(width, height)
                continue
            assert processor.get_number_of_image_patches(height, width) == sides[0] * sides[1] // 196
        if min(sides) < 28 * getattr(rule, "least_tokens", 1):
            with pytest.raises(SpecError, match="a side below (15|56|112) px"):
                rule.sizes(width, height)
            continue
        found = rule.sizes(width, height)
        assert (found["patch_rows"] * 14, found["patch_columns"] * 14) == sides, (width, height)
        markers = 0 if name == "lighton_ocr" else 2
        assert rule.image_tokens(width, height) == (sides[0] // 28) * (sides[1] // 28) + markers
        checked += 1
    assert checked > 0.7 * count


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", TILED)
def test_a_tiled_page_is_the_processors(name, count, without_pixels):
    rule, (module, stem, settings) = load_model(name).learned.page_rule, TILED[name]
    processor = image_processor(module, stem, settings)
    if name == "deepseek_ocr2":
        processor.pad_to_square = lambda image, **_: image
    for width, height in pages(count).tolist():
        found = rule.sizes(width, height)
        image = np.broadcast_to(np.uint8(0), (3, height, width))
        if name == "granite_docling":  # its batches copy pixels: the two methods that its processor counts by
            assert processor.get_tile_grid(height, width) == (found["tile_rows"], found["tile_columns"])
            tiles = processor.get_number_of_image_patches(height, width)
        else:
            made = processor._preprocess([image], **arguments(processor))
            tiles = made["num_local_patches" if name == "deepseek_ocr2" else "num_patches"][0]
        assert found["tiles"] == tiles, (width, height)
        assert rule.image_tokens(width, height) == processor_tokens(name, processor, found), (width, height)


def arguments(processor):
    """What `preprocess` hands on, from the processor's own settings."""
    from transformers.image_utils import SizeDict

    kept = ("crop_to_patches", "min_patches", "max_patches", "tile_size", "background_color", "do_resize")
    given = {key: getattr(processor, key) for key in kept if hasattr(processor, key)}
    size = SizeDict(height=processor.size["height"], width=processor.size["width"])
    scaling = {"do_rescale": False, "rescale_factor": 1.0, "do_normalize": False, "image_mean": 0.0, "image_std": 1.0}
    return given | scaling | {"size": size, "resample": None, "return_tensors": None}


def processor_tokens(name, image_processor, found):
    """Tokens that the processor writes for a page of these sizes, by its own `replace_image_token`."""
    module, stem = {"granite_docling": ("granite_docling", "GraniteDocling"), "deepseek_ocr2": ("deepseek_ocr2", "DeepseekOcr2")}.get(
        name, ("qianfan_ocr", "QianfanOCR")
    )
    processor = getattr(importlib.import_module(f"transformers.models.{module}.processing_{module}"), f"{stem}Processor")
    names = {"fake_image_token": "F", "global_image_tag": "G", "image_seq_len": 64, "image_seq_length": 256, "patch_size": 16}
    own = SimpleNamespace(
        image_token="I", start_image_token="S", end_image_token="E", downsample_ratio=4, image_processor=image_processor, **names
    )
    inputs = {
        "rows": [[found["tile_rows"]]],
        "cols": [[found["tile_columns"]]],
        "num_local_patches": [found["tiles"]],
        "num_patches": [found["tiles"]],
    }
    text = processor.replace_image_token(own, inputs, 0)
    if name == "granite_docling":  # one token: a placeholder, a marker, a position, a run of line breaks
        for row in range(17):
            for column in range(17):
                text = text.replace(f"<row_{row}_col_{column}>", "P")
        text = text.replace("\n\n", "\n")
    return len(text)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("crop", [True, False])
def test_unlimited_ocr_tiles_as_its_image_processor(count, crop, monkeypatch):
    """Its image processor needs torchvision, of which this takes one function: the rest of it runs on tensors without data."""
    import sys

    import torch

    for module in ("torchvision", "torchvision.transforms", "torchvision.transforms.v2"):
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(functional=None, v2=None, transforms=None))
    module = importlib.import_module("transformers.models.unlimited_ocr.image_processing_unlimited_ocr")
    from transformers.image_utils import SizeDict
    from transformers.models.unlimited_ocr.processing_unlimited_ocr import UnlimitedOcrProcessor

    cls = module.UnlimitedOcrImageProcessor
    own = SimpleNamespace(
        resize=lambda image, size, resample: image.new_empty(*image.shape[:-2], size.height, size.width),
        rescale_and_normalize=lambda image, *_: image,
        pad_to_square=lambda image, background_color: image.new_empty(*image.shape[:-2], max(image.shape[-2:]), max(image.shape[-2:])),
        background_color=None,
        skip_tensor_conversion=cls.skip_tensor_conversion,
    )
    own.crop_image_to_patches = lambda *args, **kwargs: cls.crop_image_to_patches(own, *args, **kwargs)
    settings = {key: getattr(cls, key) for key in ("min_patches", "max_patches", "tile_size", "maximum_pad_value")}
    off = dict.fromkeys(("resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "disable_grouping"))
    rule = replace(load_model("unlimited_ocr").learned.page_rule, several_pages=True)
    processor = SimpleNamespace(
        patch_size=16, downsample_ratio=4, image_token="I", image_processor=SimpleNamespace(size=cls.size, tile_size=640)
    )
    for width, height in pages(count).tolist():
        image = torch.empty(3, height, width, device="meta")
        made = cls._preprocess(own, [image], size=SizeDict(**cls.size), crop_to_patches=crop, return_tensors=None, **settings, **off)
        found = rule.with_pages(rule.sizes(width, height), 1 if crop else 3)  # several pages are not cut
        assert found["tiles"] == made["num_local_patches"][0], (width, height)
        assert [found["tile_columns"], found["tile_rows"]] == made["patches_grid"][0]
        assert made["pixel_values"][0].shape[-2:] == (1024, 1024)
        assert rule.tokens_of(found) == found["pages"] * len(UnlimitedOcrProcessor.replace_image_token(processor, made, 0))


@pytest.mark.parametrize("name", MODELS)
def test_columns_are_the_pages_one_by_one(name):
    rule, found = load_model(name).learned.page_rule, pages(200)
    width, height = found[~rule.refuses(*found.T)].T
    columns, tokens = rule.sizes(width, height), rule.image_tokens(width, height)
    for index in range(0, len(width), 7):
        page = int(width[index]), int(height[index])
        assert {key: int(np.broadcast_to(value, width.shape)[index]) for key, value in columns.items()} == rule.sizes(*page)
        assert int(np.broadcast_to(tokens, width.shape)[index]) == rule.image_tokens(*page)


def test_an_a4_page_at_200_dpi():
    tokens = {name: load_model(name).learned.page_rule.image_tokens(1654, 2339) for name in MODELS}
    assert tokens == {
        "deepseek_ocr2": 256 + 6 * 144 + 1,
        "glm_ocr": 59 * 84 + 2,
        "got_ocr2": 258,
        "granite_docling": 25 * 64 + 2 * 24 + 6 + 3,
        "lighton_ocr": 39 * 55,
        "paddleocr_vl": 71 * 50 + 2,
        "qianfan_ocr": 7 * 256 + 2,
        "qwen2_5_vl": 59 * 84 + 2,
        "unlimited_ocr": 903,
    }


@pytest.mark.parametrize(
    "rule", [SmartResize(14, 2, 3136, 12845056), LongestEdge(14, 2, 1540), TilesBesideView(640, 1024, 32), TilesWithThumbnail(448, 256, 12)]
)
def test_a_page_without_pixels_is_refused(rule):
    with pytest.raises(SpecError, match="image_width_px: 0 is not a whole number of pixels"):
        rule.sizes(0, 100)
    assert rule.limits


def test_without_grids_to_choose_from_a_page_is_its_view_and_the_model_says_what_was_changed():
    run = load_run(["model=unlimited_ocr", "model.page_rule.most_tiles=0"])
    assert (run.workload.tiles, run.workload.image_tokens, run.model.page_rule.limits) == (0, 273, "a view of 1024 px")
    assert run.model.title == "unlimited_ocr (changed: page_rule.most_tiles)"
