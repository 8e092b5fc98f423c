"""FLOPs by module and against tokens: the rows are the frames' integers, measured points lie where they belong."""

from itertools import pairwise

import polars as pl

import ocr_flops as of
from ocr_flops import charts, units
from ocr_flops.app import spot_checks
from ocr_flops.app.setting import Setting
from ocr_flops.charts import theme
from tests.support.drawing import headline, texts
from tests.support.results import result

MODEL = of.load_model("deepseek_ocr")


def modules_of(setting):
    return pl.concat([one.modules for one in setting.estimates(MODEL)])


def both(setting, *ran, off=0):
    """The charts by module and by tokens, with what ran laid over them."""
    measured = spot_checks.rows_beside([spot_checks.build_frame(MODEL, result(one, off=off)) for one in ran], setting)
    mode = setting.attention_modes[0]
    sweep = of.sweep(MODEL, setting.neighbours, mode, engine=setting.engine, dtype=setting.dtype)
    return charts.flops_by_module(modules_of(setting), measured), charts.flops_by_tokens(
        sweep, setting.estimate(MODEL, mode).stages, measured
    )


def test_bars_hold_every_flop_in_the_colour_of_their_part_or_mode():
    modules = modules_of(Setting(attention="all"))
    for work in ("tensor_flops", "vector_flops"):
        bars = charts.flops_by_module(modules, work=work).datasets["bars"]
        assert sum(bar["flops"] for bar in bars) == modules[work].sum()
    chart = charts.flops_by_module(modules)
    assert chart.params["colours"] == [theme.attention_colour(mode) for mode in chart.params["modes"]]
    bars = charts.flops_by_module(modules_of(Setting())).datasets["bars"]
    assert {bar["colour"] for bar in bars if bar["name"].startswith("SAM")} == {theme.FAMILIES["SAM"]}


def test_titles_state_the_stage_and_the_module_that_do_most():
    tensor, tokens = both(Setting())
    stages = Setting().estimates(MODEL)[0].stage_numbers
    matrix, whole = (sum(row[work] for row in stages.values()) for work in ("tensor_flops", "total_flops"))
    assert (
        f"Vision is {100 * stages['vision']['tensor_flops'] / matrix:.0f} % of {matrix / 1e12:.2f} T tensor FLOPs; SAM MLP alone"
        in headline(tensor)
    )
    assert f"{whole / 1e12:.2f} TFLOPs in all" in headline(tensor) and "bf16 (runnable)" in headline(tensor)
    heads = [row["text"].split(" · ")[0] for row in tensor.datasets["heads"]]
    assert heads == [units.si(row["tensor_flops"], "FLOPs") for row in stages.values()]  # of which the title has the sum
    assert "Vector FLOPs are" in headline(charts.flops_by_module(modules_of(Setting()), work="vector_flops"))
    assert "903 image tokens cost" in headline(tokens)
    for setting, words in (
        (Setting(attention="all"), "eager / sdpa / flash, bf16 (partly modelled)"),
        (Setting(engine="remote_code"), "remote_code, the engine's own attention"),
    ):
        assert words in headline(charts.flops_by_module(modules_of(setting)))


def test_measured_points_are_drawn_and_named():
    tensor, tokens = both(Setting(), Setting())
    assert len(tensor.datasets["points"]) > 10 and all(point["clear"] and point["difference"] == 0 for point in tensor.datasets["points"])
    assert {point["stage"] for point in tokens.datasets["points"]} == {"vision", "prefill"}
    for chart in (tensor, tokens):
        assert "measured: transformers, UnlimitedOcr class, random weights, eager, meta" in texts(chart)


def test_points_of_another_setting_are_faint_say_so_and_set_no_axis():
    shown, ran = Setting(mode="tiny"), Setting()
    bare, beside = both(shown), both(shown, ran)
    assert beside[0].params["room"] == bare[0].params["room"] and beside[1].datasets["lines"] == bare[1].datasets["lines"]
    points = [*beside[0].datasets["points"], *beside[1].datasets["points"]]
    assert points and not any(point["clear"] for point in points)
    assert all(point["counted_flops"] <= beside[0].params["room"] for point in beside[0].datasets["points"])
    ends = {bar["row"]: bar["end"] for bar in beside[0].datasets["bars"]}
    patches = next(point for point in points if point["name"] == "SAM patches")
    assert ends["vision|SAM patches"] == patches["counted_flops"]  # its number stands clear of the point
    assert "at 2 × 3 tiles, 913 tokens, batch 1: not what is shown" in texts(beside[0])
    near = both(shown, Setting(mode="small"))  # a size that these charts have room for
    assert {point["stage"] for point in near[1].datasets["points"]} == {"vision", "prefill"} and "beyond this chart" not in texts(near[1])
    assert "with other settings: not what is shown" in texts(both(Setting(source="grid", columns=1, rows=2, batch_size=2), ran)[1])


def test_a_larger_batch_at_the_same_grid_sets_no_axis():
    frame = spot_checks.build_frame(MODEL, result(Setting(batch_size=8)))
    tokens = both(Setting(), Setting(batch_size=8))[1].datasets
    highest = max(row["tensor_flops"] for row in tokens["lines"])
    counted = dict(frame.filter(module="total").select("stage", "counted_flops").iter_rows())
    assert counted["vision"] > highest
    assert {point["stage"] for point in tokens["points"]} == {stage for stage in ("vision", "prefill") if counted[stage] <= highest}


def test_measured_points_beyond_a_chart_are_named_all_the_same():
    tokens = both(Setting(), Setting(source="grid", columns=20, rows=25))[1]
    assert tokens.datasets["points"] == []
    assert "measured: transformers, UnlimitedOcr class" in texts(tokens) and "beyond this chart" in texts(tokens)


def test_a_matching_point_sets_the_axis_moves_the_number_aside_and_wins_over_a_later_one():
    tensor, tokens = both(Setting(), Setting(), off=10**12)  # counted far more than analytic
    counted = {point["row"]: point["counted_flops"] for point in tensor.datasets["points"]}
    assert counted and tensor.params["room"] > max(counted.values())
    assert all(bar["end"] == counted[bar["row"]] for bar in tensor.datasets["bars"] if bar["row"] in counted)
    assert {point["stage"] for point in tokens.datasets["points"]} == {"vision", "prefill"}
    assert all(point["clear"] for point in both(Setting(), Setting(), Setting(batch_size=2))[0].datasets["points"])


def test_beyond_the_published_grids_the_curve_has_grids_in_between():
    shown = Setting(source="grid", columns=20, rows=25)
    tokens = both(shown)[1]
    prefill = [row for row in tokens.datasets["lines"] if row["stage"] == "prefill"]
    gaps = [later["image_tokens"] - row["image_tokens"] for row, later in pairwise(prefill)]
    assert prefill[-1]["grid"] == "20 × 25" and max(gaps) < 0.15 * prefill[-1]["image_tokens"]
    assert "nearly square grids beyond them up to 20 × 25" in headline(tokens) and "22 " in headline(both(Setting())[1])
