"""The charts of a calibration: predictions with their bounds, efficiencies or rates, and every error."""

import polars as pl
import pytest

from ocr_flops.charts.calibration import efficiencies, errors, predictions
from ocr_flops.evidence.calibration import calibrate
from tests.support import synthetic
from tests.support.drawing import assert_draws, headline, texts

POINTS = synthetic.workloads(synthetic.PAGES[::3], (1, 8), ((10, 16),))


@pytest.fixture(scope="module")
def found(model):
    frame = synthetic.frame(POINTS, model, noise=0.03)
    return {
        "h200": calibrate(frame, model),
        "no figures": calibrate(frame.with_columns(hardware=pl.lit(None, pl.String), device=pl.lit("A box")), model),
        "no decode": calibrate(frame.filter(pl.col("stage") != "decode"), model),
    }


def test_charts_are_valid_and_draw(found):
    for one in found.values():
        for draw in (predictions, efficiencies, errors):
            assert_draws(draw(one))


def test_predictions_are_drawn_with_their_bounds(found):
    chart, rows = predictions(found["h200"]), found["h200"].predictions
    assert [row["predicted"] for row in chart.datasets["points"]] == rows["predicted_seconds"].to_list()
    assert [row["bound"] for row in chart.datasets["points"]] == rows["bound_seconds"].to_list()
    within = 100 * ((rows["ratio"] - 1).abs() <= 0.15).mean()
    assert f"{within:.0f} % of the stages of workloads left out are predicted within 15 %" in headline(chart)
    assert "no bound" in headline(predictions(found["no figures"]))


def test_efficiencies_or_rates(found):
    chart = efficiencies(found["h200"])
    assert f"reaches {100 * found['h200'].efficiencies[0].efficiency.value:.0f} % of its matrix units and" in headline(chart)
    assert "not known: it binds in no record" in texts(chart) and len(chart.datasets["bars"]) == 2
    rates = headline(efficiencies(found["no figures"]))
    assert "its peaks are not known" in rates and "TFLOP/s" in rates and "% of its" not in rates


def test_every_error_is_drawn(found):
    chart = errors(found["h200"])
    assert len(chart.datasets["points"]) == found["h200"].errors["rows"].sum()
    decode = next(row for row in found["h200"].errors.to_dicts() if row["figure"] == "decode")
    assert f"time per token within {100 * decode['p90_error']:.1f} %" in headline(chart)
    assert {row["figure"] for row in errors(found["no decode"]).datasets["spans"]} == {"vision", "prefill", "first token"}
