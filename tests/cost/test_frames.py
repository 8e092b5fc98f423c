"""The columns, types and order of every frame."""

import numpy as np
import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.cost import frames
from ocr_flops.cost.stage_groups import COLUMNS

LABELS = ["attention", "engine", "dtype", "cache", "mode", "evidence"]
WORKLOAD = [
    "image_width_px",
    "image_height_px",
    "global_px",
    "tile_px",
    "columns",
    "rows",
    "tiles",
    "image_tokens",
    "prompt_tokens",
    "context_tokens",
    "output_tokens",
    "batch_size",
    "pages",
]
WORK = [
    "tensor_flops",
    "vector_flops",
    "total_flops",
    "torch_flops",
    "operators",
    "weight_io_bytes",
    "activation_io_bytes",
    "kv_io_bytes",
    "io_bytes",
    "weight_bytes",
    "kv_cache_bytes",
    "peak_activation_bytes",
]
MODULES = {
    "vision": {
        "sam.patch",
        "sam.attention_windowed",
        "sam.attention_global",
        "sam.mlp",
        "sam.neck",
        "clip.embed",
        "clip.attention",
        "clip.mlp",
        "projector",
        "merge",
    },
    "prefill": {
        "decoder.embed",
        "merge",
        "decoder.attention",
        "decoder.dense_mlp",
        "decoder.router",
        "decoder.routed_experts",
        "decoder.shared_experts",
        "decoder.norm_residual",
        "lm_head",
    },
}
MODULES["decode"] = MODULES["prefill"] - {"merge"}


@pytest.fixture(scope="module")
def result(model):
    return of.estimate(model, of.Workload.from_image(1654, 2339, output_tokens=9), "eager")


def test_columns_and_types(result):
    assert set(COLUMNS) == set(WORK)
    for frame, keys in ((result.stages, ["stage"]), (result.modules, ["stage", "module"])):
        assert frame.columns[: len(keys)] == keys
        assert set(frame.columns) == {*keys, *LABELS, *WORKLOAD, *WORK, "arithmetic_intensity"}
        for name, dtype in frame.schema.items():
            expected = pl.Categorical if name in (*keys, *LABELS) else pl.Float64 if name == "arithmetic_intensity" else pl.Int64
            assert dtype == expected, name


def test_rows_are_the_stages_and_modules(result):
    assert result.stages["stage"].to_list() == ["vision", "prefill", "decode"]
    for stage, modules in MODULES.items():
        assert set(result.modules.filter(pl.col("stage") == stage)["module"]) == modules
    assert result.modules.select("stage", "module").is_unique().all()


def test_frames_hold_the_numbers(result):
    for row in result.stages.iter_rows(named=True):
        assert {column: row[column] for column in WORK} == result.stage_numbers[row["stage"]]
        assert row["arithmetic_intensity"] == row["total_flops"] / row["io_bytes"]
    for row in result.modules.iter_rows(named=True):
        assert {column: row[column] for column in WORK} == result.module_numbers[row["stage"], row["module"]]


def test_the_workload_is_in_every_row(result):
    for row in result.modules.iter_rows(named=True):
        assert {name: row[name] for name in WORKLOAD} == {name: getattr(result.workload, name) for name in WORKLOAD}
        assert [row[name] for name in LABELS[:5]] == ["eager", "transformers", "bf16", "dynamic", "gundam"]


def test_intensity_is_null_where_nothing_moves(model):
    for points in (of.Workload.from_grid(output_tokens=0), of.Workload.from_grid(output_tokens=np.zeros(600, np.int64))):
        frame = of.sweep(model, points)
        assert frame.filter(pl.col("stage") == "decode")["arithmetic_intensity"].null_count() == points.points
        assert frame["arithmetic_intensity"].null_count() == points.points
        assert not frame["arithmetic_intensity"].is_nan().any()


@pytest.mark.parametrize("level", ["stage", "module"])
def test_small_and_large_frames_are_the_same(model, monkeypatch, level):
    workload = of.Workload.from_grid(columns=np.arange(1, 20), rows=2, output_tokens=np.arange(19))
    small = of.sweep(model, workload, "flash", level=level)
    monkeypatch.setattr(frames, "SMALL", 0)
    large = of.sweep(model, workload, "flash", level=level)
    assert small.schema == large.schema
    assert small.equals(large)


@pytest.mark.parametrize("attention", ["eager", ["eager", "flash"]])
def test_chosen_columns_are_those_of_the_whole_frame(model, attention):
    workload = of.Workload.from_grid(columns=np.arange(1, 300), rows=2)
    whole, chosen = of.sweep(model, workload, attention), of.sweep(model, workload, attention, columns=["torch_flops", "io_bytes"])
    assert [name for name in chosen.columns if name in WORK] == ["torch_flops", "io_bytes"]
    assert "arithmetic_intensity" not in chosen.columns
    assert chosen.equals(whole.select(chosen.columns))


def test_order_of_a_sweep(model):
    frame = of.sweep(model, of.Workload.from_grid(columns=np.array([3, 2])), ["sdpa", "eager"])
    assert frame["attention"].to_list() == ["sdpa"] * 6 + ["eager"] * 6
    assert frame["columns"].to_list() == [3, 3, 3, 2, 2, 2] * 2
    assert frame["stage"].to_list() == ["vision", "prefill", "decode"] * 4


@pytest.mark.parametrize(
    ("engine", "attention", "cache", "evidence"),
    [
        ("transformers", "eager", "dynamic", ["runnable"] * 3),
        ("transformers", "sdpa", "dynamic", ["runnable"] * 3),
        ("transformers", "flash", "dynamic", ["modelled"] * 3),
        ("transformers", "sdpa", "static", ["runnable", "modelled", "modelled"]),
        ("remote_code", "vendor", "dynamic", ["runnable"] * 3),
        ("remote_code", "vendor", "static", ["runnable", "modelled", "modelled"]),
        ("remote_code", "eager", "dynamic", ["modelled", "runnable", "runnable"]),  # each of its towers has one mode
        ("remote_code", "sdpa", "dynamic", ["runnable", "modelled", "modelled"]),
        ("remote_code", "flash", "dynamic", ["modelled"] * 3),
    ],
)
def test_evidence(model, engine, attention, cache, evidence):
    assert of.estimate(model, of.Workload.from_grid(2), attention, engine=engine, cache=cache).stages["evidence"].to_list() == evidence


def test_the_vendors_code_cannot_choose_the_positions_of_its_logits(model):
    for engine, evidence in (("remote_code", ["runnable", "modelled", "runnable"]), ("transformers", ["runnable"] * 3)):
        stages = of.estimate(model, of.Workload.from_grid(2), engine=engine, prefill_logits="last").stages
        assert stages["evidence"].to_list() == evidence
