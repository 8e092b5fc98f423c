"""Every operator stands in the roofline, none above its roof."""

import pytest

import ocr_flops as of
from ocr_flops.charts import roofline
from tests.support.drawing import assert_draws, headline


@pytest.fixture(scope="module")
def long_batch(model):
    return of.estimate(model, of.Workload.from_grid(9, 1, batch_size=64, output_tokens=2048), "flash").on(of.load_hardware("h200"))


def test_every_operator_has_a_place_and_none_is_above_its_roof(timings, long_batch, idle):
    for timing in (timings["sdpa"], long_batch, idle):
        chart, hardware = roofline(timing), timing.hardware
        points = chart.datasets["points"]
        assert sum(point["share"] for point in points) == pytest.approx(1)
        left = min(line["intensity"] for line in chart.datasets["lines"])
        for point in points:
            assert (point["intensity"] < left) == (point["work"] == "none")
            roof = min(hardware.matrix_peak("bf16"), point["intensity"] * hardware.memory_bandwidth_bytes_per_second)
            # vector FLOPs run beside the matrix FLOPs of a fused kernel, at most 4 % on top
            assert point["work"] == "none" or point["attained"] <= 1.04 * roof
            assert chart.params["across"][0] <= point["intensity"] <= chart.params["across"][1]
        assert_draws(chart)


def test_titles_name_ceiling_and_largest_point(timings, long_batch):
    for timing, largest in ((timings["sdpa"], "routed experts in decode, 42 %"), (long_batch, "decoder attention in decode, 52 %")):
        operators = timing.operators
        bound = operators.filter(operators["binding_ceiling"] == "bandwidth")["share"].sum()
        without = operators.filter(operators["total_flops"] == 0)["share"].sum()
        words = headline(roofline(timing))
        assert f"{100 * bound:.0f} % of roofline time is bound by memory bandwidth" in words and f"largest point is {largest}" in words
        assert f"Copies, casts and gathers: {100 * without:.0f} % of the time" in words


def test_the_name_of_the_vector_roof_stands_below_it_and_is_narrow(timings):
    chart = roofline(timings["sdpa"])
    vector, matrix = chart.datasets["vector"][0], chart.datasets["roofs"][0]
    assert vector["attained"] == 30.3e12 < matrix["attained"] and max(map(len, vector["text"].split("\n"))) <= 13
