import json
import re
import subprocess
import sys
from itertools import combinations, pairwise

import altair as alt
import numpy as np
import polars as pl
import pytest
import vl_convert

import ocr_flops as of
from ocr_flops import charts, units
from ocr_flops.app import spot_checks
from ocr_flops.app.setting import Setting
from ocr_flops.charts import theme
from ocr_flops.charts.chart import MIME
from tests.support.colours import SIGHT, lab, linear, luminance
from tests.support.results import result

MODEL = of.load_model("deepseek_ocr")
SCENARIOS = {
    "page": Setting(),
    "side by side": Setting(attention="all"),
    "fp32": Setting(attention="all", dtype="fp32"),
    "one view": Setting(mode="tiny"),
    "beyond": Setting(source="grid", columns=10, rows=7, mode="gundam_m"),
    "huge": Setting(source="grid", columns=32, rows=32, batch_size=512),
    "no output": Setting(output_tokens=0),
    "published code": Setting(engine="remote_code"),
}


def modules_of(scenario):
    return pl.concat([one.modules for one in scenario.estimates(MODEL)])


def all_charts(scenario, measured=()):
    modules = modules_of(scenario)
    stages = scenario.estimates(MODEL)[0].stages
    sweep = of.sweep(MODEL, scenario.neighbours, scenario.attention_modes[0], engine=scenario.engine, dtype=scenario.dtype)
    return [
        charts.flops_by_module(modules, measured),
        charts.flops_by_module(modules, work="vector_flops"),
        charts.flops_by_tokens(sweep, stages, measured),
        charts.tiling_picture(scenario.workload),
    ]


def texts(chart):
    """What a reader reads: the text of the drawn chart."""
    svg = vl_convert.vegalite_to_svg(chart.to_dict() | {"width": 700})
    return re.sub(r"\s+", " ", " ".join(re.findall(r">([^<>]+)</(?:text|tspan)>", svg)))


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_chart_is_valid_and_draws(name):
    for chart in all_charts(SCENARIOS[name]):
        alt.Chart.from_dict(chart.to_dict())  # checks the specification
        json.dumps(chart.to_dict(), allow_nan=False)
        shown = texts(chart)
        assert not re.search(r"\d{7}|NaN|undefined|null", shown), shown


def test_the_title_states_the_finding():
    tensor, vector, tokens, tiling = all_charts(SCENARIOS["page"])
    stages = SCENARIOS["page"].estimates(MODEL)[0].stage_numbers
    matrix, whole = (sum(row[work] for row in stages.values()) for work in ("tensor_flops", "total_flops"))
    part = 100 * stages["vision"]["tensor_flops"] / matrix
    assert f"Vision is {part:.0f} % of {matrix / 1e12:.2f} T tensor FLOPs; SAM MLP alone" in texts(tensor)
    assert f"it is {whole / 1e12:.2f} TFLOPs in all" in texts(tensor)
    heads = [row["text"].split(" · ")[0] for row in tensor.datasets["heads"]]
    assert heads == [units.si(row["tensor_flops"], "FLOPs") for row in stages.values()]  # of which the title has the sum
    assert "Vector FLOPs are" in texts(vector)
    assert "903 image tokens cost" in texts(tokens)
    assert "2 × 3 tiles and a global view: 903 image tokens" in texts(tiling)


def test_conditions_are_below_the_title():
    assert "attention eager / sdpa / flash, bf16 (partly modelled)" in texts(all_charts(SCENARIOS["side by side"])[0])
    assert "remote_code, attention vendor, bf16 (runnable)" in texts(all_charts(SCENARIOS["published code"])[0])


def test_bars_hold_every_flop():
    modules = modules_of(SCENARIOS["side by side"])
    for work in ("tensor_flops", "vector_flops"):
        bars = charts.flops_by_module(modules, work=work).datasets["bars"]
        assert sum(bar["flops"] for bar in bars) == modules[work].sum()


def test_a_module_keeps_its_colour_and_every_module_has_one():
    modules = modules_of(SCENARIOS["page"])
    assert set(modules["module"]) <= set(theme.MODULES)
    assert {bar["colour"] for bar in charts.flops_by_module(modules).datasets["bars"] if bar["name"].startswith("SAM")} == {
        theme.FAMILIES["SAM"]
    }
    assert len(set(theme.FAMILIES.values())) == len(theme.FAMILIES)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("palette", [theme.FAMILIES, theme.STAGE_COLOURS])
def test_any_two_colours_differ_for_everyone(palette, sight):
    seen = [lab(SIGHT[sight] @ linear(colour)) for colour in palette.values()]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 17  # 2 is just noticed


@pytest.mark.parametrize("colour", [*theme.FAMILIES.values(), *theme.STAGE_COLOURS.values(), theme.INK])
@pytest.mark.parametrize("background", ["#ffffff", "#181c1a"])
def test_colours_are_seen_on_light_and_dark(colour, background):
    lighter, darker = sorted((luminance(colour), luminance(background)), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) > 2


def test_charts_follow_the_theme():
    for chart in all_charts(SCENARIOS["page"]):
        specification = chart.to_dict()
        assert specification["config"]["background"] == "transparent" and specification["width"] == "container"
        assert not re.search('"(label|title)Color"', json.dumps(specification))


def test_measured_points_are_drawn_and_named():
    measured = spot_checks.beside([spot_checks.frame(MODEL, result(Setting()))], Setting())
    tensor, _, tokens, _ = all_charts(Setting(), measured)
    assert len(tensor.datasets["points"]) > 10 and all(point["clear"] and point["difference"] == 0 for point in tensor.datasets["points"])
    assert {point["stage"] for point in tokens.datasets["points"]} == {"vision", "prefill"}
    for chart in (tensor, tokens):
        assert "measured: transformers, UnlimitedOcr class, random weights, eager, meta" in texts(chart)


def test_measured_points_of_another_setting_stay_and_say_so():
    frame = spot_checks.frame(MODEL, result(Setting()))
    shown = Setting(source="grid", columns=1, rows=2, batch_size=2)
    tensor, _, tokens, _ = all_charts(shown, spot_checks.beside([frame], shown))
    assert not any(point["clear"] for point in (*tensor.datasets["points"], *tokens.datasets["points"]))
    assert "at 2 × 3 tiles, 913 tokens, batch 1: not what is shown" in texts(tensor)
    assert "with other settings: not what is shown" in texts(tokens)


def test_points_of_another_setting_set_no_axis():
    frames = [spot_checks.frame(MODEL, result(scenario)) for scenario in (Setting(), Setting(mode="small"))]
    shown = Setting(mode="tiny")
    bare, beside = all_charts(shown), all_charts(shown, spot_checks.beside(frames[:1], shown))
    assert beside[0].params["room"] == bare[0].params["room"]  # the axis of the bars
    rooms = beside[0].params["room"]
    assert all(point["counted_flops"] <= rooms and not point["clear"] for point in beside[0].datasets["points"])
    tokens = beside[2].datasets
    assert tokens["lines"] == bare[2].datasets["lines"] and {point["stage"] for point in tokens["points"]} <= {"prefill"}
    widest, highest = (max(row[name] for row in tokens["lines"]) for name in ("image_tokens", "tensor_flops"))
    assert all(point["image_tokens"] <= widest and point["counted_flops"] <= highest for point in tokens["points"])
    ends = {bar["row"]: bar["end"] for bar in beside[0].datasets["bars"]}
    assert ends["vision|SAM patches"] == frames[0].filter(stage="vision", module="sam.patch")["counted_flops"][0]  # its number stands clear
    near = all_charts(shown, spot_checks.beside(frames[1:], shown))  # a size that these charts have room for
    assert near[0].params["room"] == bare[0].params["room"] and {point["stage"] for point in near[2].datasets["points"]} == {"vision", "prefill"}
    assert "beyond this chart" not in texts(near[2])


def test_a_larger_batch_at_the_same_grid_sets_no_axis():
    frame = spot_checks.frame(MODEL, result(Setting(batch_size=8)))
    tokens = all_charts(Setting(), spot_checks.beside([frame], Setting()))[2].datasets
    highest = max(row["tensor_flops"] for row in tokens["lines"])
    counted = dict(frame.filter(module="total").select("stage", "counted_flops").iter_rows())
    assert counted["vision"] > highest and {point["stage"] for point in tokens["points"]} == {
        stage for stage in ("vision", "prefill") if counted[stage] <= highest
    }


def test_measured_points_beyond_a_chart_are_named_all_the_same():
    frame = spot_checks.frame(MODEL, result(Setting(source="grid", columns=20, rows=25)))
    _, _, tokens, _ = all_charts(Setting(), spot_checks.beside([frame], Setting()))
    assert tokens.datasets["points"] == []
    assert "measured: transformers, UnlimitedOcr class" in texts(tokens) and "beyond this chart" in texts(tokens)
    bars = charts.flops_by_module(modules_of(Setting(mode="tiny")), spot_checks.beside([frame], Setting(mode="tiny")))
    assert all(point["counted_flops"] <= bars.params["room"] for point in bars.datasets["points"])


def test_a_matching_point_sets_the_axis_and_moves_the_number_aside():
    message = result(Setting(), off=10**12)  # counted far more than analytic
    tensor, _, tokens, _ = all_charts(Setting(), spot_checks.beside([spot_checks.frame(MODEL, message)], Setting()))
    counted = {point["row"]: point["counted_flops"] for point in tensor.datasets["points"]}
    assert counted and tensor.params["room"] > max(counted.values())
    assert all(bar["end"] == counted[bar["row"]] for bar in tensor.datasets["bars"] if bar["row"] in counted)
    assert {point["stage"] for point in tokens.datasets["points"]} == {"vision", "prefill"}


def test_beyond_the_vendors_grids_the_curve_has_grids_in_between():
    shown = Setting(source="grid", columns=20, rows=25)
    tokens = all_charts(shown)[2]
    prefill = [row for row in tokens.datasets["lines"] if row["stage"] == "prefill"]
    apart = [later["image_tokens"] - row["image_tokens"] for row, later in pairwise(prefill)]
    assert prefill[-1]["grid"] == "20 × 25" and max(apart) < 0.15 * prefill[-1]["image_tokens"]
    assert "nearly square grids beyond them up to 20 × 25" in texts(tokens)
    assert "No tiles and the 22 vendor grids of Gundam;" in texts(all_charts(Setting())[2])
    shown = Setting(source="grid", columns=5, rows=8)
    sweep = of.sweep(MODEL, shown.neighbours, ["eager", "flash"])
    by_tiles = charts.savings_by_tiles(sweep, "io_bytes", 40)
    assert max(row["x"] for row in by_tiles.datasets["points"]) == 40 == by_tiles.datasets["ends"][0]["x"]
    assert "up to 5 × 8" in texts(by_tiles)


def test_axes_have_a_space_before_the_unit():
    estimate = Setting().estimate(MODEL, "sdpa")
    sweep = of.sweep(MODEL, Setting().neighbours, ["eager", "flash"])
    for chart in (charts.flops_by_module(estimate.modules), charts.flops_by_tokens(sweep, estimate.stages), charts.savings_by_tiles(sweep)):
        assert not re.search(r"\d[kMGTP](B|\b)", texts(chart)), texts(chart)
    assert re.search(r"\d GB", texts(charts.savings_by_tiles(sweep))) and "0B" not in texts(charts.savings_by_tiles(sweep))


@pytest.mark.parametrize("value, text", [(0, "0"), (25e9, "25 GB"), (500, "500 B"), (1.5e6, "1.5 MB")])
def test_an_axis_label(value, text):
    label = theme.si_axis("B")
    chart = alt.Chart(alt.Data(values=[{"value": value}])).transform_calculate(text=label).mark_text().encode(alt.Text("text:N"))
    assert f">{text}<" in vl_convert.vegalite_to_svg(chart.to_dict())


@pytest.mark.parametrize("width, fits", [(300, False), (1600, True)])
def test_shares_are_written_where_they_fit(width, fits):
    estimate = Setting().estimate(MODEL, "sdpa")
    chart = charts.shares(estimate, estimate.on(of.load_hardware("l4")))
    svg = vl_convert.vegalite_to_svg(chart.to_dict() | {"width": width})
    written = re.findall(r">(\d+) %<", svg)
    assert (any(int(part) <= 6 for part in written)) is fits and any(int(part) >= 40 for part in written)


def test_the_point_shown_wins_over_a_later_one():
    frames = [spot_checks.frame(MODEL, result(scenario)) for scenario in (Setting(), Setting(batch_size=2))]
    points = charts.flops_by_module(modules_of(Setting()), spot_checks.beside(frames, Setting())).datasets["points"]
    assert all(point["clear"] for point in points)


def test_the_drawn_tiles_are_the_tiles():
    picture = charts.tiling_picture(Setting(source="grid", columns=4, rows=5).workload)
    assert sum(box["what"].startswith("tile ") for box in picture.datasets["boxes"]) == 20
    assert len(picture.datasets["lines"]) == 3 + 4
    assert "(10·5)·(10·4 + 1) = 2,050 tokens" in texts(picture)


def test_a_grid_too_large_to_draw_is_one_box():
    picture = charts.tiling_picture(Setting(source="grid", columns=100, rows=100).workload)
    assert len(picture.datasets["boxes"]) < 5 and "100 × 100 tiles of 640 px" in texts(picture)


def test_a_small_view_is_stretched_and_a_large_one_padded():
    for mode, padded in (("tiny", False), ("small", False), ("base", True), ("large", True)):
        boxes = charts.tiling_picture(Setting(mode=mode).workload).datasets["boxes"]
        assert any("padding" in box["what"] for box in boxes) is padded


def test_a_small_page_says_why_it_is_not_tiled():
    assert "Neither side is above 640 px" in texts(charts.tiling_picture(Setting(width_px=640, height_px=400).workload))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1.00"),
        (999, "999"),
        (1000, "1.00 k"),
        (786_230_673_408, "786 G"),
        (9.9e20, "990 E"),
        (999_600, "1.00 M"),
        (71_761_920, "71.8 M"),
    ],
)
def test_si(value, text):
    assert units.si(value) == text
    assert units.si(value, "B") == (f"{text}B" if " " in text else f"{text} B")


def test_share():
    assert [units.share(part, 1000) for part in (0, 1, 4.9, 10, 764)] == ["0 %", "0.1 %", "0.49 %", "1 %", "76 %"]
    assert units.share(1, 0) == "0 %"


def test_jupyter_and_altair_get_the_same_chart():
    chart = all_charts(SCENARIOS["page"])[0]
    assert json.dumps(chart._repr_mimebundle_()[MIME]) == chart._mime_()[1] == json.dumps(chart.to_dict())
    assert isinstance(chart.altair(width=400), alt.LayerChart)


def test_a_chart_costs_little_once_its_template_is_there(benchmark):
    benchmark(lambda: charts.flops_by_module(modules_of(SCENARIOS["page"]))._mime_())


def test_the_package_imports_no_altair():
    code = "import sys, ocr_flops; ocr_flops.load_model(); print([name for name in ('altair', 'marimo', 'torch') if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
