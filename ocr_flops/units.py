"""Numbers with units, for people: SI prefixes, seconds, percentages, workloads in words."""

from __future__ import annotations

from typing import Any

SI = ".3~s"


def si(value: float, unit: str = "") -> str:
    """A number with three significant digits and an SI prefix: 786 G."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if abs(value) < 999.5 or prefix == "E":
            digits = max(0, 2 - len(str(int(abs(value)))) + 1) if value else 0
            text = f"{value:.{digits}f}" if abs(value) >= 0.9995 else f"{value:.3g}"
            return f"{text} {prefix}{unit}".strip()
        value /= 1000
    raise AssertionError("unreachable")


def share(part: float, whole: float) -> str:
    """A part of a whole in percent, whole numbers from 1 % on."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent >= 1 or not percent else f"{percent:.2g} %"


def workload_words(row: dict[str, Any]) -> str:
    """The workload of a row of any frame in a line: views, tokens, batch."""
    grid = f"{row['columns']} × {row['rows']} tiles and a {row['global_px']} px view" if row["tiles"] else f"{row['global_px']} px view"
    return f"{grid}, {row['context_tokens']:,} context + {row['output_tokens']:,} output tokens, batch {row['batch_size']}"


def seconds(value: float) -> str:
    """Seconds with three digits and a prefix: 16.4 ms; thousands as they are: 1,450 s."""
    if value >= 999.5:
        return f"{value:,.0f} s"
    factor, unit = next(((factor, unit) for factor, unit in ((1, "s"), (1e3, "ms")) if value * factor >= 0.9995), (1e6, "µs"))
    return si(value * factor, unit) if value else "0 s"


def less(base: float, best: float) -> str:
    """A saving in words: 75 % less."""
    if base == best:
        return "no less"
    return f"{share(abs(base - best), base)} {'less' if best < base else 'more'}"
