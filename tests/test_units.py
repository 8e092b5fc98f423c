"""Numbers as people read them: rounded once, with the prefix that the rounded number needs."""

import pytest

from ocr_flops import Workload
from ocr_flops.units import counted, duration, hour_price, seconds, share, si, workload_label


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (903, "903 B"),
        (999.6, "1.00 kB"),
        (45, "45 B"),
        (45.0, "45.0 B"),
        (0.25, "0.25 B"),
        (1_916_266_708_992, "1.92 TB"),
        (-1500, "-1.50 kB"),
        (10**21, "1000 EB"),
    ],
)
def test_three_digits_and_a_prefix(value, text):
    assert si(value, "B") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1000, "1 k"),
        (1_916_266_708_992, "1.916 T"),
        (2**62, "4.612 E"),
        (10**21, "1000 E"),
        (0.0025, "2.5 m"),
        (3.2e-7, "320 n"),
        (1e-20, "1e-08 p"),
    ],
)
def test_more_digits_without_zeros_at_the_end(value, text):
    assert si(value, digits=4, zeros=False, small=True) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 s"), (0.0164, "16.4 ms"), (5e-8, "50.0 ns"), (0.9996, "1.00 s"), (999.4, "999 s"), (1450, "1,450 s")]
)
def test_seconds(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(("part", "text"), [(1, "50 %"), (0.01, "0.5 %"), (0, "0 %"), (2, "100 %")])
def test_shares(part, text):
    assert share(part, 2) == text
    assert share(part, 0) == "0 %"


def test_a_workload_in_a_few_words():
    assert workload_label(Workload.from_grid(2, 3)) == "2 × 3 tiles, 913 tokens, batch 1"
    assert workload_label(Workload.from_grid(mode="base", batch_size=4)) == "1024 px view, 283 tokens, batch 4"


def test_durations_and_counts():
    assert [hour_price(1.2345), hour_price(12345, "EUR"), hour_price(2.4 / 0.8)] == ["1.2345 an hour", "12,345 EUR an hour", "3 an hour"]
    assert [duration(hours) for hours in (1 / 3600, 0.5, 5.2, 47.9, 48)] == ["1 s", "30 min", "5.2 h", "47.9 h", "2 days"]
    assert duration(72, 48, 1e5) == "3 days (2 to 4,170)" and duration(1, 1, 1) == "1 h" and duration(float("inf")) == "inf days"
    assert [counted(number, "page") for number in (0, 1, 1200)] == ["0 pages", "1 page", "1,200 pages"]
