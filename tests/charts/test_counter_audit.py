"""What torch's counter hides: every part of every stage, and the share that the title names."""

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.charts.counter_audit import hidden_flops
from ocr_flops.evidence.verify import counter_audit
from tests.support.drawing import assert_draws, headline


def test_every_part_is_shown_and_adds_up_to_the_stage(model):
    recorded, estimate = counter_audit.read_audit(), counter_audit.estimate_audited(model, of.Workload.from_grid(2, 3))
    hidden = counter_audit.hidden_frame(recorded, estimate)
    chart = hidden_flops(hidden, estimate, recorded["ran"]["torch"])
    bars = chart.datasets["bars"]
    assert len(bars) == hidden.filter(pl.col("flops") > 0).height
    assert {row["row"]: row["end"] for row in bars} == {row["row"]: pytest.approx(100) for row in bars}
    counted = [row["share"] for row in hidden.filter(stage="all stages", group="counted").to_dicts()]
    assert headline(chart).startswith(f"torch's counter misses {100 * (1 - min(counted)):.0f} % of this model's FLOPs")
    assert_draws(chart)
