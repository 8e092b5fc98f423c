"""Memory stacks to the footprint; what grows with the output is the traffic of every step."""

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.charts import growth, memory
from tests.support.drawing import assert_draws, headline


def test_memory_stacks_to_the_footprint_and_says_what_fits(timings, l4):
    estimates = [timing.estimate for timing in timings.values()]
    chart = memory(estimates, l4)
    for mode, timing in timings.items():
        parts = [part for part in chart.datasets["bars"] if part["row"] == mode]
        needs = timing.estimate.footprint
        assert [part["end"] - part["start"] for part in parts] == list(needs[:3]) and parts[-1]["end"] == needs.total_bytes
        text = next(row["text"] for row in chart.datasets["ends"] if row["row"] == mode)
        assert ("to spare" in text) == timing.fits
    assert headline(chart).startswith("sdpa fits NVIDIA L4 (24 GB) with 9.71 GB to spare, flash with 15.2 GB, eager lacks 3.16 GB")
    assert headline(memory(estimates[:1], l4)).startswith("Does not fit NVIDIA L4 (24 GB): lacks 3.16 GB")


def test_without_a_device_no_line_is_drawn(by_mode):
    chart = memory({"here": by_mode["sdpa"]})
    assert chart.datasets["line"] == [] and headline(chart).startswith("The run needs 14.3 GB")
    assert headline(memory(by_mode)).startswith("eager needs 27.2 GB of device memory, flash 8.79 GB")
    assert_draws(chart)


def test_words_stand_behind_what_was_measured(by_mode):
    chart = memory({"here": by_mode["sdpa"]}, allocated={"here": (2 * 10**10, "measured here"), "elsewhere": (1, "")})
    assert [row["end"] for row in chart.datasets["measured"]] == [2 * 10**10] == [row["end"] for row in chart.datasets["ends"]]
    assert chart.params["room"] > 2 * 10**10


@pytest.mark.parametrize(("cache", "times"), [("dynamic", "3 times its"), ("static", "its")])
def test_growth_gives_every_steps_traffic(model, cache, times):
    def page(output_tokens):
        return of.Workload.from_image(1654, 2339, "gundam", batch_size=4, output_tokens=output_tokens)

    chart = growth(of.sweep(model, page(np.array([0, 1, 100, 400])), "eager", cache=cache), 100)
    for count in (100, 400):
        after, before = (of.estimate(model, page(n), "eager", cache=cache).stage_numbers["decode"] for n in (count, count - 1))
        last = max((row for row in chart.datasets["areas"] if row["output_tokens"] == count), key=lambda row: row["bytes"])
        assert last["bytes"] == pytest.approx(after["io_bytes"] - before["io_bytes"], rel=1e-9)
        held = next(row["bytes"] for row in chart.datasets["held"] if row["output_tokens"] == count)
        assert held == after["kv_cache_bytes"]
    assert f"to a step, {times} own size" in headline(chart)
    assert_draws(chart)
