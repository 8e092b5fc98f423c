"""Everything that a command line chooses, as specs."""

from dataclasses import fields, is_dataclass

import pytest

from ocr_flops.errors import SpecError
from ocr_flops.spec import catalog
from ocr_flops.spec.run_spec import load_run
from ocr_flops.spec.workload import Workload


def test_defaults():
    run = load_run()
    assert (run.model, run.engine, run.attention) == (catalog.load_model(), catalog.load_engine(), catalog.load_attention())
    assert (run.dtype, run.cache, run.prefill_logits, run.stages) == ("bf16", "dynamic", "last", ("vision", "prefill", "decode"))
    assert run.hardware is None
    page = run.workload
    assert (page.image_width_px, page.image_height_px, page.columns, page.rows) == (1654, 2339, 2, 3)
    assert (page.mode, page.prompt_tokens, page.output_tokens, page.batch_size) == ("gundam", 10, 256, 1)


def test_overrides():
    numbers = ["workload.output_tokens=7", "workload.batch_size=3", "workload.prompt_tokens=0"]
    choices = ["model=tiny_test", "engine=remote_code", "workload=gundam_m", "attention=eager", "dtype=fp16", "cache=static"]
    run = load_run([*choices, *numbers, "stages=[decode,vision]"])
    assert (run.model.name, run.engine.name, run.attention.name) == ("tiny_test", "remote_code", "eager")
    assert (run.workload.mode, run.workload.output_tokens, run.workload.batch_size, run.workload.prompt_tokens) == ("gundam_m", 7, 3, 0)
    assert (run.dtype, run.cache, run.prefill_logits) == ("fp16", "static", "all")  # logits as remote_code's generate
    assert run.stages == ("vision", "decode")  # in the order they run
    assert load_run(["engine=remote_code", "prefill_logits=last"]).prefill_logits == "last"


@pytest.mark.parametrize(
    ("overrides", "grid"),
    [
        (["columns=2", "rows=1"], (2, 1)),
        (["columns=4"], (4, 1)),
        (["rows=4"], (1, 4)),
        (["columns=1", "rows=1"], (1, 1)),
        (["image_width_px=600", "image_height_px=640"], (1, 1)),
        (["image_width_px=2339", "image_height_px=1654"], (3, 2)),
        (["columns=null"], (2, 3)),
        (["image_width_px=600", "image_height_px=640", "untiled_up_to_px=0"], (2, 2)),
    ],
)
def test_grid_or_image(overrides, grid):
    page = load_run([f"workload.{override}" for override in overrides]).workload
    assert (page.columns, page.rows) == grid


def test_attention_tower_by_tower():
    mixed = load_run(["attention=flash", "attention.sam=eager"]).attention
    assert [mixed.name, *map(mixed.kernel, ("sam", "clip", "decoder"))] == ["mixed", "eager", "flash", "flash"]
    one = load_run(["attention.decoder=eager"]).attention
    assert [one.name, *map(one.kernel, ("sam", "clip", "decoder"))] == ["mixed", None, None, "eager"]
    assert load_run(["attention=flash", "attention.sam=flash"]).attention.name == "flash"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("dtype=int8", "dtype: 'int8' is not one of bf16, fp16, fp32"),
        ("dtype=[bf16]", "dtype: ['bf16'] is not one of bf16, fp16, fp32"),
        ("cache=sliding", "cache: 'sliding' is not one of dynamic, static"),
        ("prefill_logits=some", "prefill_logits: 'some' is not one of all, last"),
        ("stages=[]", "stages: [] is not a list of one or more of vision, prefill, decode"),
        ("stages=vision", "stages: 'vision' is not a list of one or more of vision, prefill, decode"),
        ("stages=[vision,training]", "stages: 'training' is not one of vision, prefill, decode"),
        ("stages=[vision,vision]", "stages: 'vision' is named twice; "),
        ("workload.batch_size=-3", "workload.batch_size: -3 is not a whole number from 1 to 65536"),
        ("workload.columns=0", "workload.columns: 0 is not a whole number from 1 to 10000"),
        (
            "workload.image_width_px=0 workload.image_height_px=9",
            "workload.image_width_px: 0 is not a whole number of pixels from 1 to 1000000",
        ),
        ("workload.image_width_px=300", "workload.image_width_px: is half a size; give also workload.image_height_px"),
        ("workload.image_height_px=300", "workload.image_height_px: is half a size; give also workload.image_width_px"),
        ("workload.image_height_px=300 workload.rows=2", "workload.image_height_px: has no effect beside workload.rows; give either "),
        ("workload.global_px=1000", "workload.global_px: 1000 is not a multiple of 16 "),
        ("workload=base workload.columns=2", "workload.columns x rows: 2 x 1 on mode 'base', which has no tiles; only 1 x 1 is possible"),
    ],
)
def test_a_value_that_no_run_has(overrides, message):
    with pytest.raises(SpecError) as caught:
        load_run(overrides.split())
    assert str(caught.value).startswith(message)


def test_only_plain_values_leave():
    def check(value):
        if isinstance(value, tuple):
            for item in value:
                check(item)
        elif is_dataclass(value):
            for field in fields(value):
                check(getattr(value, field.name))
        else:
            assert type(value) in (int, float, str, bool, type(None)), value

    check(load_run(["hardware=h200"]))
    check(catalog.modes())


def test_python_and_command_line_agree():
    page = Workload.from_image(1000, 3000, "gundam_m", output_tokens=5)
    same = ["workload=gundam_m", "workload.image_width_px=1000", "workload.image_height_px=3000", "workload.output_tokens=5"]
    composed = load_run(same).workload
    assert all(getattr(page, field.name) == getattr(composed, field.name) for field in fields(Workload))
