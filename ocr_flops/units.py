"""Numbers with units, for people: SI prefixes, seconds, percentages, workloads in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor, inf, log10
from typing import Any

SI = ".3~s"  # the same as `si`, for the axes of charts: a format of D3
SECONDS_PER_HOUR, SECONDS_PER_DAY = 3600, 86_400
ENDS = ("", "_low", "_high")  # of the names of columns of a figure with a range
FACTOR_FROM = 3  # a change is said as a factor from here on
DURATIONS = (("s", 1 / 3600, 1 / 60), ("min", 1 / 60, 1), ("h", 1, 48), ("days", 24, inf))  # hours of one, and below which it is used
PREFIXES = {-4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P", 6: "E"}


def si(value: float, unit: str = "", digits: int = 3, zeros: bool = True, small: bool = False) -> str:
    """A finite number with an SI prefix and significant digits: 786 GB; an integer below 1000 as it is.

    `zeros` writes those at the end, as in 1.50 k; with `small`, numbers below one have prefixes too (m, µ, n, p).
    """
    if isinstance(value, int) and abs(value) < 1000:
        return f"{value} {unit}".strip()
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = floor(log10(abs(rounded))) if rounded else 0
    power = min(max(exponent // 3, -4 if small else 0), max(PREFIXES))
    decimals = max(0, digits - 1 - (exponent - 3 * power)) if rounded else 0
    scaled = rounded / 1000**power
    text = f"{scaled:.{decimals}f}" if zeros and exponent >= 3 * power else f"{scaled:.{digits}g}"
    return f"{text} {PREFIXES[power]}{unit}".strip()


def seconds(value: float) -> str:
    """Seconds with three digits and a prefix: 16.4 ms; thousands as they are: 1,450 s."""
    return f"{value:,.0f} s" if value >= 999.5 else si(value, "s", small=True)


def duration(hours: float, *ends: float) -> str:
    """Hours as people say them, with their low and high end where these are given: 40 min, 5.2 h, 3.4 days (2.5 to 4.1)."""
    unit, size, _ = next((row for row in DURATIONS if hours < row[2]), DURATIONS[-1])
    value, *ends = (count(one / size) for one in (hours, *ends))
    return f"{value} {unit}" + (f" ({' to '.join(ends)})" if len({*ends}) > 1 else "")


def count(value: float) -> str:
    """A number with three digits, without a prefix: 103,000."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def money(amount: float, currency: str) -> str:
    """An amount, with its currency where it has one."""
    return f"{count(amount)} {currency}".strip()


def hour_price(price: float, currency: str = "") -> str:
    """What was typed for an hour of a device, digit by digit: 1.2345 USD an hour."""
    return f"{price:,.10g} {currency}".strip() + " an hour"


def count_interval(figure: Sequence[Any]) -> str:
    """Three numbers of pages, 103,000 (78,700 to 126,000); one where all are the same."""
    value, low, high = map(count, figure[:3])
    return value if value == low == high else f"{value} ({low} to {high})"


def per_day(per_second: float) -> str:
    """A rate, as of pages a second, in a day: 29.9 k."""
    return si(SECONDS_PER_DAY * per_second)


def counted(number: int, noun: str) -> str:
    """A number of things: 1 page, 1,200 pages."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def interval(figure: Sequence[Any], unit: str = "s") -> str:
    """A value and its low and high end with units, without the ends where they are the value: 16.4 ms (15.9 ms to 17.0 ms)."""
    value, low, high = (seconds(one) if unit == "s" else si(one, unit) for one in figure[:3])
    return value if low == high else f"{value} ({low} to {high})"


def share(part: float, whole: float) -> str:
    """A part of a whole in percent, whole numbers from 1 % on."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent >= 1 or not percent else f"{percent:.2g} %"


def escape_controls(text: str) -> str:
    """A text whose control characters, as in the name of a hostile file, are shown escaped: "a\\x1b[31m"."""
    return "".join(letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode() for letter in text)


def less(base: float, best: float) -> str:
    """A saving in words: 75 % less."""
    if base == best:
        return "no less"
    return f"{share(abs(base - best), base)} {'less' if best < base else 'more'}"


def change(value: float, base: float) -> str:
    """How a value differs from another, as a factor where percentages say little: −25 %, × 3.5, ÷ 12."""
    if value == base:
        return "no change"
    if value >= FACTOR_FROM * base > 0:
        return f"× {value / base:.3g}"
    if base >= FACTOR_FROM * value > 0:
        return f"÷ {base / value:.3g}"
    return f"{'−' if value < base else '+'}{share(abs(value - base), base)}"


def name_attention(mode: str) -> str:
    """An attention mode in words: "vendor" is what the engine runs by itself."""
    return mode.replace("vendor", "the engine's own")


def attention_words(*modes: str) -> str:
    """Attention modes in a line of conditions: attention eager / flash; the engine's own attention."""
    return "the engine's own attention" if modes == ("vendor",) else f"attention {' / '.join(map(name_attention, modes))}"


def page_words(row: Mapping[str, Any]) -> str:
    """The page of a row of any frame as the model takes it: 2 × 3 tiles and a 1024 px view."""
    if not row["global_px"]:
        grid = f"page of {row['image_width_px']} × {row['image_height_px']} px"
    else:
        grid = f"{row['columns']} × {row['rows']} tiles and a {row['global_px']} px view" if row["tiles"] else f"{row['global_px']} px view"
    return _pages(row.get("pages")) + grid


def workload_words(row: Mapping[str, Any]) -> str:
    """The workload of a row of any frame in a line: page, tokens, batch."""
    tokens = f"{row['context_tokens']:,} context + {counted(row['output_tokens'], 'output token')}"
    return f"{page_words(row)}, {tokens}, batch {row['batch_size']}"


def workload_label(workload: Any) -> str:
    """One workload in a few words, without the tokens it generates: 2 × 3 tiles, 913 tokens, batch 1."""
    if not workload.global_px:
        grid = f"page of {workload.image_width_px} × {workload.image_height_px} px"
    else:
        grid = f"{workload.columns} × {workload.rows} tiles" if workload.tiles else f"{workload.global_px} px view"
    return f"{_pages(workload.pages)}{grid}, {workload.context_tokens} tokens, batch {workload.batch_size}"


def _pages(pages: int | None) -> str:
    """What stands before a page of which a request has several."""
    return f"{pages} pages, each a " if pages and pages > 1 else ""
