"""Polynomials of sizes: arithmetic, and agreement with the integers they stand for."""

import random

import pytest

from ocr_flops.cost.polynomial import Dimension, dominates, evaluate, product, terms_of, undominated

A, B = Dimension("a"), Dimension("b")


def at(size, **values):
    """The polynomial's value at named integers."""
    return evaluate(size, lambda monomial: product(values[name] for name in monomial))


def test_arithmetic():
    assert terms_of((A + 2) * (B - 3) * A) == {("a", "a", "b"): 1, ("a", "a"): -3, ("a", "b"): 2, ("a",): -6}
    assert terms_of(5 - 2 * A) == {(): 5, ("a",): -2}
    assert terms_of(-A + 1) == {("a",): -1, (): 1}


def test_order_of_names_does_not_matter():
    assert A * B == B * A
    assert hash(A * B) == hash(B * A)
    assert A * B != A * A
    assert A != "a"


def test_what_cancels_is_gone():
    assert terms_of(A - A) == {}
    assert A - A == 0
    assert terms_of(A * 0 + 7) == {(): 7}


def test_ints_are_constant_terms():
    assert terms_of(0) == {}
    assert terms_of(4) == {(): 4}
    assert A * 0 + 4 == 4


def test_exact_division():
    assert (6 * A * B + 4) // 2 == 3 * A * B + 2
    with pytest.raises(ValueError, match="is not divisible by 4"):
        (6 * A + 4) // 4


def test_product():
    assert product([]) == 1
    assert product([2, 3, 4]) == 24
    assert product([2, A, 3, B]) == 6 * A * B


def test_repr_names_every_term():
    assert repr(2 * A * B + 3) == "3 + 2·a·b"
    assert repr(A - A) == "0"


def expression(a, b, choose):
    """The same random expression whether a and b are sizes or ints."""
    value = a
    for _ in range(6):
        other = choose.choice([a, b, choose.randint(-9, 9)])
        value = choose.choice([lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: y + x])(value, other)
    return value


@pytest.mark.parametrize("seed", range(20))
def test_evaluates_to_what_ints_give(seed):
    a, b = random.Random(seed).randint(0, 10**6), random.Random(seed + 1000).randint(0, 10**6)
    assert at(expression(A, B, random.Random(seed)), a=a, b=b) == expression(a, b, random.Random(seed))


def test_what_dominates_is_as_large_everywhere():
    small, large, other = A + 5, 2 * A + 5, A + B
    assert dominates(large, small) and not dominates(small, large) and not dominates(large, other)
    assert undominated([small, large, other, 2 * A + 5]) == (2 * A + 5, other)
    assert undominated([A - 4, A]) == (A,)
    assert undominated([3, 5]) == (5,)


def test_evaluation_is_exact_beyond_floats():
    assert evaluate(3 * A + 1, lambda names: 2**60 + 1 if names else 1) == 3 * 2**60 + 4
