"""Output lengths as laws: their moments, their spread, and what is refused."""

import numpy as np
import pytest

from ocr_flops.errors import SpecError
from ocr_flops.studies.corpus.lengths import fixed, lognormal, quantiles, read_lengths


def percentile(lengths, share):
    return lengths.tokens[np.searchsorted(np.cumsum(lengths.shares), share)]


@pytest.mark.parametrize(("mean", "p95"), [(800, 2000), (300, 310), (900, 3400)])
def test_a_lognormal_law_has_its_mean_and_percentile(mean, p95):
    found = lognormal(mean, p95, limit=100_000)
    assert found.mean == pytest.approx(mean, rel=1e-3)
    assert percentile(found, 0.95) == pytest.approx(p95, rel=0.02)
    assert found.shares.sum() == pytest.approx(1)
    assert (np.diff(found.tokens) > 0).all()


def test_a_limit_ends_long_pages():
    assert lognormal(800, 2500, limit=3000).longest == 3000


def test_quantiles_are_met_and_straight_between():
    found = quantiles({0.1: 100, 0.9: 900})
    assert (found.tokens[0], found.longest) == (100, 900)
    assert percentile(found, 0.5) == pytest.approx(500, abs=4)


def test_loops_take_their_share_to_the_limit():
    found = fixed(100).with_loops(0.25, 8192)
    assert (found.tokens.tolist(), found.shares.tolist()) == ([100, 8192], [0.75, 0.25])
    assert fixed(100).with_loops(0.0).tokens.tolist() == [100]


def test_the_longest_of_some_pages():
    found = quantiles({0.0: 100, 1.0: 100}).with_loops(0.5, 200)
    assert found.of_longest(1) == pytest.approx([0.5, 0.5])
    assert found.of_longest(3) == pytest.approx([1 / 8, 7 / 8])


@pytest.mark.parametrize(("text", "mean"), [("800", 800), ("lognormal:800:2000", 800), ("quantiles:0=100,1=300", 200)])
def test_lengths_from_the_command_line(text, mean):
    assert read_lengths(text).mean == pytest.approx(mean, rel=1e-2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: read_lengths("many"), "lengths: 'many' is not 800, lognormal:800:2000"),
        (lambda: read_lengths("lognormal:800"), "lengths: 'lognormal:800' is not"),
        (lambda: lognormal(800, 700), "a 95th percentile of 700 for a mean of 800; it lies between the mean and 3095"),
        (lambda: lognormal(0.5, 1), "a mean of 0.5"),
        (lambda: quantiles({0.1: 500, 0.9: 100}), "are no quantiles"),
        (lambda: quantiles({}), "are no quantiles"),
        (lambda: fixed(-1), "lengths: -1 is not a number of tokens from 0"),
        (lambda: fixed(100).with_loops(1.0), "loops: 1.0"),
        (lambda: fixed(9000).with_loops(0.1), "limit: 8192 output tokens, and some pages have 9000"),
    ],
)
def test_what_is_no_law_is_named(make, message):
    with pytest.raises(SpecError) as problem:
        make()
    assert message in str(problem.value)
