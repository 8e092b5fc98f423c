"""Colours that all readers tell apart on every page, and labels of axes."""

from itertools import combinations, product

import altair as alt
import numpy as np
import pytest
import vl_convert

from ocr_flops.charts import counter_audit, encoding, theme, tiling
from ocr_flops.charts.calibration import COLOURS as FIGURES
from ocr_flops.charts.slides import EXPERTS, OTHERS, PARTS
from tests.support.colours import SIGHT, lab, linear, luminance

SETTINGS = [*theme.STAGE_COLOURS.values(), *theme.MEMORY_COLOURS.values()]
MODES = [*theme.ATTENTION_COLOURS.values(), theme.OTHER_ATTENTION]
SIDE_BY_SIDE = {  # what stands in one chart
    "families": theme.TIMED.values(),
    "stages, memory and attention modes": [*SETTINGS, *MODES],
    "ceilings": theme.CEILING_COLOURS.values(),
    "counter audit": counter_audit.COLOURS.values(),
    "figures of a calibration": FIGURES.values(),
    "an output token": [PARTS[kind] for kind in (EXPERTS, OTHERS, "activations", "KV cache", "decode")],
}
COLOURS = {colour for palette in SIDE_BY_SIDE.values() for colour in palette} | {theme.INK, theme.LIMIT, tiling.PAD}
TOLD_APART, SEEN = 17, 3  # a distance of 2 is just noticed; 3:1 is what WCAG 2.2 asks of graphics


def distance(one, other, sight):
    return np.linalg.norm(lab(SIGHT[sight] @ linear(one)) - lab(SIGHT[sight] @ linear(other)))


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("palette", SIDE_BY_SIDE)
def test_any_two_colours_differ_for_everyone(palette, sight):
    assert min(distance(*pair, sight) for pair in combinations(SIDE_BY_SIDE[palette], 2)) > TOLD_APART


def test_an_attention_mode_does_not_look_like_a_module():
    pairs = product(MODES, theme.FAMILIES.values())
    assert min(distance(*pair, "all cones") for pair in pairs) > TOLD_APART


@pytest.mark.parametrize("background", ["#ffffff", "#181c1a"])
def test_colours_are_seen_on_light_and_dark(background):
    for colour in COLOURS:
        lighter, darker = sorted((luminance(colour), luminance(background)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > SEEN, colour


@pytest.mark.parametrize("value, text", [(0, "0"), (25e9, "25 GB"), (500, "500 B"), (1.5e6, "1.5 MB")])
def test_an_axis_label_has_a_space_before_its_unit(value, text):
    rows = alt.Chart(alt.Data(values=[{"value": value}])).transform_calculate(text=encoding.si_axis("B"))
    assert f">{text}<" in vl_convert.vegalite_to_svg(rows.mark_text().encode(alt.Text("text", type="nominal")).to_dict())


def test_every_module_has_a_name_and_a_colour(by_mode):
    modules = by_mode["sdpa"].modules
    assert set(modules["module"]) <= set(theme.MODULES) and len(set(theme.FAMILIES.values())) == len(theme.FAMILIES)
    assert theme.module_name("a.mlp") == "a MLP" and theme.module_colour("a.module") == theme.INK
