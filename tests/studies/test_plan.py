"""What a sweep computes: its points, its rows, and what it refuses before it starts."""

import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

import ocr_flops as of
from ocr_flops.cost.frames import WORKLOAD_COLUMNS
from ocr_flops.cost.stage_groups import COLUMNS
from ocr_flops.spec.tiling import rule_grids
from ocr_flops.studies.sweeps.pages import grid_pages, image_pages, is_published_grid
from ocr_flops.studies.sweeps.plan import load_sweep

REFERENCE = [(columns, rows) for columns in range(1, 30) for rows in range(1, columns + 1) if 2 <= columns * rows <= 29]


def pairs(pages):
    return list(zip(pages.fields["columns"].tolist(), pages.fields["rows"].tolist(), strict=True))


def test_grids_of_every_kind():
    assert pairs(load_sweep(["sweep=vendor"]).pages) == list(rule_grids()) and len(rule_grids()) == 22
    assert sorted(pairs(load_sweep(["sweep=reference"]).pages)) == sorted(REFERENCE) and len(REFERENCE) == 53
    extended = pairs(load_sweep(["sweep=extended"]).pages)
    assert [columns * rows for columns, rows in extended] == list(range(2, 1001))
    assert pairs(grid_pages("square", 6, 12)) == [(2, 3), (1, 7), (2, 4), (3, 3), (2, 5), (1, 11), (3, 4)]


def test_rows_say_whether_the_vendor_supports_their_grid():
    frame = load_sweep(["sweep=extended", "stages=[vision]"]).stages_frame()
    for columns, rows, supported in frame.select("columns", "rows", "vendor_supported").iter_rows():
        assert supported == ((columns, rows) in rule_grids())
    assert is_published_grid(np.array([1, 1, 9, 10, 1, 10_000]), np.array([1, 9, 1, 1, 10, 1])).tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_rows_are_those_of_the_python_api(model):
    sweep = load_sweep(["sweep=reference", "attention=[eager,flash]", "hardware=h200", "workload.output_tokens=9"])
    frame = sweep.stages_frame()
    pages = sweep.pages.fields
    workload = of.Workload.from_grid(pages["columns"], pages["rows"], output_tokens=9)
    direct = of.sweep(model, workload, ["eager", "flash"], hardware=of.load_hardware("h200"))
    assert frame.select(direct.columns).equals(direct)
    assert {"point", "model", "prefill_logits", "vendor_supported", *WORKLOAD_COLUMNS, *COLUMNS} <= set(frame.columns)
    assert frame["point"].to_list() == np.repeat(np.arange(106), 3).tolist()


def test_modes():
    frame = load_sweep(["sweep=modes"]).stages_frame()
    assert frame["mode"].unique(maintain_order=True).cast(str).to_list() == ["tiny", "small", "base", "large", "gundam", "gundam_m"]
    assert load_sweep(["sweep=modes", "workload=tiny"]).points == 1  # the command line has the last word


@pytest.mark.parametrize(
    ("cases", "number"),
    [
        pytest.param(
            ["attention=[eager,sdpa]", "dtype=[bf16,fp32]", "prefill_logits=[all,last]", "hardware=[h200,a100_80gb_sxm]"],
            16,
            marks=pytest.mark.verification,
        ),
        (["engine=[transformers,remote_code]", "cache=[dynamic,static]", "workload=[gundam,gundam_m]", "hardware=[h200]"], 8),
    ],
)
def test_a_product_has_every_combination_once_and_each_row_is_right(cases, number):
    numbers = ["workload.columns=1:3", "workload.rows=[1,3]", "workload.batch_size=[1,4]", "workload.prompt_tokens=0:20:10"]
    sweep = load_sweep([*numbers, "workload.output_tokens=5", *cases])
    assert sweep.points == 3 * 2 * 2 * 3 * number and sweep.rows == 3 * sweep.points
    frame = sweep.stages_frame()
    settings = ["attention", "engine", "dtype", "cache", "prefill_logits", "mode", "hardware"]
    identity = ["stage", *settings, "columns", "rows", "prompt_tokens", "batch_size"]
    assert frame.height == sweep.rows == frame.select(identity).unique().height == frame.select("point", "stage").unique().height
    for row in frame.sample(6, seed=1).iter_rows(named=True):
        rest = {name: row[name] for name in ("batch_size", "prompt_tokens", "output_tokens")}
        options = {name: row[name] for name in ("engine", "dtype", "cache", "prefill_logits")}
        one = of.estimate(
            of.load_model(), of.Workload.from_grid(row["columns"], row["rows"], row["mode"], **rest), row["attention"], **options
        )
        assert {column: row[column] for column in COLUMNS} == one.stage_numbers[row["stage"]]
        again = one.on(of.load_hardware(row["hardware"])).stages.filter(pl.col("stage") == row["stage"])
        assert row["roofline_seconds"] == pytest.approx(again["roofline_seconds"][0])


def test_any_stretch_is_that_stretch_of_the_whole():
    sweep = load_sweep(["workload.columns=1:4", "workload.rows=1:3", "attention=[eager,sdpa,flash]"])
    whole = sweep.stages_frame()
    for first, last in ((0, 1), (5, 17), (11, 13), (30, 36), (0, 36)):
        assert sweep.stages_frame(first, last).equals(whole.slice(3 * first, 3 * (last - first)))


def test_fields_without_a_column_get_one():
    sweep = load_sweep(
        ["hardware=h200", "hardware.memory_bandwidth_bytes_per_second=[2e12,4e12]", "attention.sam=[eager,sdpa]", "stages=[decode]"]
    )
    frame = sweep.stages_frame()
    assert frame.select("attention.sam", "hardware.memory_bandwidth_bytes_per_second").rows() == [
        ("eager", 2e12),
        ("sdpa", 2e12),
        ("eager", 4e12),
        ("sdpa", 4e12),
    ]
    slow, _, fast, _ = frame["roofline_seconds"].to_list()
    assert slow > 1.9 * fast
    chosen = load_sweep(["hardware=[h200,l4]", "hardware.memory_bandwidth_bytes_per_second=1e12", "stages=[decode]"])
    assert {case.run.hardware.memory_bandwidth_bytes_per_second for case in chosen.cases} == {1e12}
    mixed = load_sweep(["hardware=h200", "hardware.memory_bytes=[1000000000,2.5e9]", "stages=[decode]"]).stages_frame()
    assert mixed["hardware.memory_bytes"].to_list() == [1e9, 2.5e9]


def test_images_by_their_headers(tmp_path):
    scans = tmp_path / "my scans"
    scans.mkdir()
    Image.new("RGB", (1280, 640)).save(scans / "b wide.png")
    Image.new("RGB", (600, 600)).save(scans / "a.jpg")
    Image.new("RGB", (612, 792)).save(scans / "c.pdf", resolution=72.0)
    (scans / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (scans / "notes.txt").write_text("no image")
    (scans / "more").mkdir()
    pages = image_pages(scans, dpi=72)
    assert [(name.rpartition("/")[2], number) for name, number in pages.images] == [("a.jpg", 1), ("b wide.png", 1), ("c.pdf", 1)]
    assert pages.fields["image_width_px"].tolist() == [600, 1280, 612]
    passed = {str(scans / "more"): "a folder in the folder; name it too", str(scans / "*.txt"): "1 file: no image or PDF by their names"}
    assert passed.items() <= dict(pages.skipped).items()
    [(skipped, reason)] = set(pages.skipped) - set(passed.items())
    assert skipped == str(scans / "broken.png") and reason and str(scans) not in reason
    sweep = load_sweep(["sweep=images", f'sweep.images="{scans}"', "stages=[vision]", "workload.batch_size=[1,2]"])
    frame = sweep.stages_frame()
    assert frame["image"].to_list() == [name for name, _ in pages.images for _ in range(2)]
    assert frame.select("columns", "rows").rows()[:4] == [(1, 1), (1, 1), (2, 1), (2, 1)]
    one = load_sweep(["sweep=images", f'sweep.images=["{scans}/a.jpg","{scans}/c.pdf"]'])
    assert one.points == 2


def test_axes_may_vary_together():
    both = "sweep.zip=[workload.image_width_px,workload.image_height_px]"
    sizes = ["workload.image_width_px=[600,1654]", "workload.image_height_px=[640,2339]", "workload.batch_size=[1,2]"]
    sweep = load_sweep([*sizes, both, "stages=[vision]"])
    assert sweep.label.endswith(", workload.image_width_px and workload.image_height_px together")
    frame = sweep.stages_frame()
    assert frame.select("image_width_px", "image_height_px", "batch_size").rows() == [
        (600, 640, 1),
        (600, 640, 2),
        (1654, 2339, 1),
        (1654, 2339, 2),
    ]
    pairs = load_sweep(["hardware=[l4,h200]", "attention=[eager,sdpa]", "sweep.zip=[hardware,attention]", "stages=[vision]"])
    assert pairs.stages_frame().select("hardware", "attention").rows() == [("l4", "eager"), ("h200", "sdpa")]


def test_fields_of_a_model_and_of_towers_attention_have_columns():
    frame = load_sweep(["model.towers.decoder.layers=[4,8]", "attention.sam=[eager,sdpa]", "stages=[prefill]"]).stages_frame()
    assert frame.select("model.towers.decoder.layers", "attention.sam").rows() == [(4, "eager"), (4, "sdpa"), (8, "eager"), (8, "sdpa")]
    assert frame["model"].unique().to_list() != ["deepseek_ocr"] and frame["model"].cast(str).str.contains("changed: decoder.layers").all()


REFUSED = {
    (
        "workload.batch_size=[1,2]",
        "sweep.zip=[workload.batch_size,workload.rows]",
    ): "sweep.zip: 'workload.rows' is not one of workload.batch_size",
    (
        "workload.batch_size=[1,2]",
        "workload.output_tokens=[1,2,3]",
        "sweep.zip=[workload.batch_size,workload.output_tokens]",
    ): "has 3 values; give",
    ("workload.batch_size=[1,2]", "dtype=[bf16,fp16]", "sweep.zip=[workload.batch_size,dtype]"): "sweep.zip: .* vary with each other",
    ("sweep.zip=3",): "sweep.zip: 3 is not a list",
    ("sweep.price=-1",): "sweep.price: -1 is no price above 0",
    ("sweep.price={l5: 1}",): "sweep.price: 'l5' is not one of",
    ("sweep.level=layer",): "sweep.level: 'layer' is not one of stage, module",
    ("sweep=nothing",): "sweep: 'nothing' is not one of",
    ("sweep=images",): "sweep.images: none given",
    ("sweep=images", "sweep.images=3"): "sweep.images: 3 is neither a path",
    ("sweep.axes=x",): "sweep.axes: 'x' is no mapping",
    ("sweep=images", "sweep.images=/no/such/place"): "sweep.images: /no/such/place does not exist",
    ("sweep=vendor", "workload.columns=1:3"): "workload.columns: sweep=vendor sets the pages by itself",
    ("sweep=vendor", "workload.rows=3"): "workload.rows: sweep=vendor sets the pages by itself",
    ("sweep=vendor", "model=unlimited_ocr", "workload.pages=3"): "workload.pages: sweep=vendor sets the pages by itself",
    ("sweep=vendor", "workload.image_width_px=[1,2]", "workload.image_height_px=3"): "workload.image_width_px: sweep=vendor",
    ("sweep=vendor", "sweep.max_tiles=10"): "sweep.max_tiles: 10 is more than the 9 tiles",
    ("sweep=extended", "sweep.min_tiles=1"): "sweep.min_tiles: 1 is not",
    ("workload.columns=1:3", "workload.image_width_px=[1,2]"): "workload.image_width_px: has no effect beside workload.columns",
    ("workload.image_width_px=[300,301]",): "workload.image_width_px: is half a size; give also workload.image_height_px",
    ("workload.columns=1:300", "workload.rows=1:300"): r"tiles \(columns x rows\): 90000",
    ("workload=base", "workload.columns=1:3"): "which has no tiles",
    ("workload.batch_size=[1,0]",): "batch_size: 0",
    ("workload.batch_size=[1,few]",): "workload.batch_size: 'few' is not a whole number",
    ("workload.prompt_tokens=1:2000000:100",): "prompt_tokens: ",
    ("workload.nothing=[1,2]",): "workload.nothing: unknown key",
    ("workload.tile_px=[640,650]",): "workload.tile_px: 650",
    ("attention=[eager,sparkle]",): "attention: 'sparkle'",
    ("attention=[eager,flash]", "dtype=fp32"): "flash kernels take bf16 or fp16",
    ("hardware=[h200,t4]",): "hardware.t4.matrix_flops_per_second.bf16",
    ("hardware.memory_bytes=[1,2]",): "hardware.memory_bytes: unknown key.*choose one by name",
    ("workload.output_tokens=0:1000000:1000", "workload.batch_size=65536"): r"exceeds 2\^62",
    ("hardware=h200", "hardware.memory_bytes=1:200000"): "more than 100,000 combinations",
    ("measure=gpu",): "measure: 'gpu' is not one of meta, cpu, cuda",
    ("measured_steps=0",): "measured_steps: 0",
    ("nonsense",): "'nonsense': not of the form key=value",
}


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_what_cannot_be_swept_is_refused_before_it_starts(overrides):
    with pytest.raises(of.SpecError, match=REFUSED[overrides]) as caught:
        load_sweep(overrides)
    assert "\n" not in str(caught.value)


def test_a_combination_that_cannot_be_is_left_out_and_named():
    sweep = load_sweep(["attention=[eager,flash]", "dtype=[bf16,fp32]", "workload.batch_size=[1,2]"])
    rows = sweep.stages_frame().select("attention", "dtype", "batch_size").unique().rows()
    assert {(str(mode), str(dtype)) for mode, dtype, _ in rows} == {("eager", "bf16"), ("eager", "fp32"), ("flash", "bf16")}
    assert sweep.points == 6 and [what for what, _ in sweep.skipped] == ["attention=flash, dtype=fp32"]
    assert "flash kernels take bf16 or fp16" in sweep.skipped[0][1]


def test_the_record_is_plain_and_names_the_axes():
    config = load_sweep(["sweep=vendor", "workload.prompt_tokens=0:100:10", "attention=[eager,sdpa]"]).config
    assert json.loads(json.dumps(config))["sweep"]["axes"] == {"workload.prompt_tokens": "0:100:10", "attention": ["eager", "sdpa"]}


def test_hosts_and_their_figures_can_be_swept():
    frame = load_sweep(["host=[none,eager,graphs]", "hardware=l4"]).stages_frame()
    decode = dict(frame.filter(stage="decode").select(pl.col("host").cast(pl.String), "expected_seconds").iter_rows())
    assert decode["none"] < decode["graphs"] < decode["eager"]
    slower = load_sweep(["host=eager", "host.operator_us=[5,50]", "hardware=l4"]).stages_frame().filter(stage="decode")
    assert slower["expected_seconds"][0] < slower["expected_seconds"][1] and slower["host.operator_us"].to_list() == [5, 50]
