"""Charts of time, memory and savings: their rows are the frames' numbers, their titles state what the rows say."""

import json

import altair as alt
import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.charts.growth import growth
from ocr_flops.charts.memory import memory
from ocr_flops.charts.roofline import roofline
from ocr_flops.charts.savings import saved, savings
from ocr_flops.charts.savings_by_tiles import savings_by_tiles
from ocr_flops.charts.times import time_by_module
from ocr_flops.units import seconds

MODES = ("eager", "sdpa", "flash")


def page(mode="gundam", **rest) -> of.Workload:
    return of.Workload.from_image(1654, 2339, mode, **rest)


def said(chart) -> str:
    """A chart's whole title as one line."""
    spec = chart.to_dict()["title"]
    return " ".join([*spec["text"], *spec["subtitle"]])


@pytest.fixture(scope="module")
def l4(model):
    return {mode: of.estimate(model, page(batch_size=8), mode).on(of.load_hardware("l4")) for mode in MODES}


@pytest.fixture(scope="module")
def h200(model):
    return of.estimate(model, of.Workload.from_grid(9, 1, batch_size=64, output_tokens=2048), "flash").on(of.load_hardware("h200"))


@pytest.fixture(scope="module")
def charts(model, l4, h200):
    estimates = {mode: timing.estimate for mode, timing in l4.items()}
    tokens = of.sweep(model, page(output_tokens=np.arange(0, 513, 64)), "sdpa")
    tiles = of.sweep(model, of.Workload.from_grid(np.array([1, 2, 3]), np.array([1, 1, 2])), list(MODES))
    nothing = of.estimate(model, page("tiny", output_tokens=0), "sdpa").on(of.load_hardware("l4"))
    return {
        "roofline": roofline(l4["sdpa"]),
        "roofline of a long batch": roofline(h200),
        "roofline without decode": roofline(nothing),
        "time": time_by_module(l4["sdpa"]),
        "time of decode": time_by_module(l4["sdpa"], ("decode",)),
        "time of nothing": time_by_module(nothing, ("decode",)),
        "memory": memory(list(estimates.values()), of.load_hardware("l4")),
        "memory without a device": memory({"here": estimates["sdpa"]}),
        "growth": growth(tokens, 256),
        "savings": savings(estimates, l4),
        "savings without a device": savings(estimates),
        "tiles": savings_by_tiles(tiles, tiles=6),
        "tiles, peaks": savings_by_tiles(tiles, "peak_activation_bytes"),
    }


def test_specs_are_valid_and_plain_json(charts):
    for name, chart in charts.items():
        spec = chart.to_dict()
        json.dumps(spec, allow_nan=False)
        alt.LayerChart.from_dict(spec)  # checks it against the schema
        named = set(_named(spec))
        assert named == set(spec["datasets"]), name
        assert "background" not in spec or spec["background"] == "transparent", name


def _named(spec):
    for key, value in spec.items():
        if key == "data":
            yield value["name"]
        elif key == "layer":
            for layer in value:
                yield from _named(layer)


@pytest.mark.parametrize("name", ["roofline", "roofline of a long batch", "roofline without decode"])
def test_every_operator_stands_in_the_roofline(charts, name):
    points = charts[name].datasets["points"]
    assert sum(point["share"] for point in points) == pytest.approx(1)
    left = min(line["intensity"] for line in charts[name].datasets["lines"])
    for point in points:
        assert (point["intensity"] < left) == (point["work"] == "none")


def test_no_point_is_above_its_roof(l4):
    hardware = l4["sdpa"].hardware
    for point in roofline(l4["sdpa"]).datasets["points"]:
        roof = min(hardware.matrix_peak("bf16"), point["intensity"] * hardware.memory_bandwidth_bytes_per_second)
        # vector FLOPs run beside the matrix FLOPs of a fused kernel, at most 3 % on top
        assert point["work"] == "none" or point["attained"] <= 1.03 * roof


def test_roofline_titles_name_ceiling_and_largest_point(l4, h200):
    for timing in (l4["sdpa"], h200):
        operators = timing.operators
        largest = operators.sort("share", descending=True).row(0, named=True)
        bound = operators.filter(operators["binding_ceiling"] == "bandwidth")["share"].sum()
        idle = operators.filter(operators["total_flops"] == 0)["share"].sum()
        words = said(roofline(timing))
        assert f"{100 * bound:.0f} % of the time is bound by memory bandwidth" in words
        assert f"{100 * largest['share']:.0f} %" in words
        assert f"Copies, casts and gathers: {100 * idle:.0f} % of the time" in words
    assert "largest point is routed experts in decode, 42 %" in said(roofline(l4["sdpa"]))
    assert "largest point is decoder attention in decode, 52 %" in said(roofline(h200))


def test_bars_of_time_are_the_frames_seconds(l4):
    timing = l4["sdpa"]
    for stages in (("vision", "prefill"), ("decode",)):
        data = time_by_module(timing, stages).datasets
        wholes = timing.stages.filter(timing.stages["stage"].is_in(stages))
        assert sum(bar["seconds"] for bar in data["bars"]) == pytest.approx(wholes["roofline_seconds"].sum())
        assert [row["bound"] for row in data["heads"]] == wholes["bound_seconds"].to_list()
    assert "1.13 s to the first token; 35 % of it in SAM global attention" in said(time_by_module(timing))
    assert "4.21 s for all output tokens; 54 % of it in routed experts" in said(time_by_module(timing, ("decode",)))


def test_memory_stacks_to_the_footprint_and_says_what_fits(l4):
    hardware = of.load_hardware("l4")
    chart = memory([timing.estimate for timing in l4.values()], hardware)
    for mode, timing in l4.items():
        parts = [part for part in chart.datasets["bars"] if part["row"] == mode]
        needs = timing.estimate.footprint
        assert [part["end"] - part["start"] for part in parts] == list(needs[:3])
        assert parts[-1]["end"] == needs.total_bytes
        text = next(row["text"] for row in chart.datasets["ends"] if row["row"] == mode)
        assert ("to spare" in text) == timing.fits
    assert said(chart).startswith("sdpa fits NVIDIA L4 (24 GB) with 9.73 GB to spare, flash with 15.2 GB, eager lacks 3.14 GB")
    assert said(memory([l4["eager"].estimate], hardware)).startswith("Does not fit NVIDIA L4 (24 GB): lacks 3.14 GB")


@pytest.mark.parametrize(("cache", "times"), [("dynamic", 3), ("static", 1)])
def test_growth_gives_every_steps_traffic(model, cache, times):
    tokens = np.array([0, 1, 100, 400])
    chart = growth(of.sweep(model, page(output_tokens=tokens, batch_size=4), "eager", cache=cache))
    for count in (100, 400):
        after, before = (
            of.estimate(model, page(output_tokens=n, batch_size=4), "eager", cache=cache).stage_numbers["decode"]
            for n in (count, count - 1)
        )
        last = max((row for row in chart.datasets["areas"] if row["output_tokens"] == count), key=lambda row: row["bytes"])
        assert last["bytes"] == pytest.approx(after["io_bytes"] - before["io_bytes"], rel=1e-9)
        held = next(row["bytes"] for row in chart.datasets["held"] if row["output_tokens"] == count)
        assert held == after["kv_cache_bytes"]
    assert f"{times} times its own size" in said(chart)


def test_savings_are_the_differences_of_the_frames(l4):
    estimates = {mode: timing.estimate for mode, timing in l4.items()}
    chart = savings(estimates, l4)
    bars = {(bar["what"], bar["stage"], bar["kind"]): bar for bar in chart.datasets["bars"]}
    for stage in ("vision", "prefill", "decode"):
        rows = {mode: one.stage_numbers[stage] for mode, one in estimates.items()}
        for what, column in (("bytes moved", "io_bytes"), ("peak of live activations", "peak_activation_bytes")):
            for mode in ("sdpa", "flash"):
                bar = bars[what, stage, mode]
                assert bar["saved"] == saved(rows[mode][column], rows["eager"][column])
                lengths = (bar["end"] - bar["start"]) / (bars[what, stage, "eager"]["end"] - bars[what, stage, "eager"]["start"])
                assert lengths == pytest.approx(rows[mode][column] / rows["eager"][column])
    words = said(chart)
    assert "flash moves 551 GB (80 %) less than eager in vision; to the first token 722 ms instead of 2.63 s on NVIDIA L4" in words
    assert "Matrix FLOPs are the same in every mode" in words and "Modelled: flash" in words
    assert "flash saves 0.65 % of its bytes" in words  # decode
    texts = {text["row"]: text["text"] for text in chart.datasets["ends"] if text["end"] < 1}
    assert texts["vision|sdpa"] == "266 GB (−424 GB, −61 %)"
    assert texts["decode|flash"] == "1.26 TB (as sdpa)"


def test_savings_by_tiles_compares_the_vision_stage(charts, model):
    points = {(point["mode"], point["x"]): point for point in charts["tiles"].datasets["points"]}
    assert {tiles for _, tiles in points} == {0, 2, 6}
    for mode in MODES:
        assert points[mode, 6]["value"] == of.estimate(model, of.Workload.from_grid(3, 2), mode).stage_numbers["vision"]["io_bytes"]
    assert points["eager", 2]["value"] > points["sdpa", 2]["value"] > points["flash", 2]["value"]
    assert "Each tile adds" in said(charts["tiles"]) and "With 6 tiles" in said(charts["tiles, peaks"])


def test_words_of_savings_and_seconds():
    assert saved(65e9, 100e9) == "−35.0 GB, −35 %"
    assert saved(100, 100) == "no change" and saved(5, 0) == "" and saved(3, 2) == "+1.00 B, +50 %"
    assert [seconds(value) for value in (0, 2.5e-6, 0.0164, 0.9999, 61.0)] == ["0 s", "2.50 µs", "16.4 ms", "1.00 s", "61.0 s"]


def test_words_of_savings_leave_out_the_difference_where_a_panel_is_narrow(charts):
    chart = charts["savings"]
    texts = chart.datasets["ends"]
    longest = max(texts, key=lambda row: len(row["text"]))
    assert longest["text"].count(", ") == 1 and "," not in longest["brief"] and longest["brief"].endswith(" %)")
    assert "width < least" in json.dumps(chart.template.spec) and 600 < chart.params["least"] < 900  # three panels
    assert charts["savings without a device"].params["least"] < chart.params["least"]


def test_the_name_of_the_vector_roof_stands_below_it_and_is_narrow(charts):
    chart = charts["roofline"]
    vector, matrix = chart.datasets["vector"][0], chart.datasets["roofs"][0]
    assert vector["attained"] == 30.3e12 < matrix["attained"] and max(map(len, vector["text"].split("\n"))) <= 13
