"""Which mode: published accuracy of each against the pages a day that it is expected to do."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, compiled, data, title
from ocr_flops.charts.encoding import WORDS, from_zero, painted, tips, x_of, y_of
from ocr_flops.charts.theme import INK, STAGE_COLOURS, rests_on
from ocr_flops.spec.specs import STAGES
from ocr_flops.spec.tiling import queries
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.timing import Timing
from ocr_flops.units import si, workload_words

LANGUAGES = {"English": STAGE_COLOURS["vision"], "Chinese": STAGE_COLOURS["prefill"]}


def accuracy_by_mode(timings: Mapping[str, Timing], accuracy: Mapping[str, Any], mode: str, missing: Sequence[str] = ()) -> Chart:
    """Published edit distance against expected pages a day.

    Args:
        timings: the page on one device, by mode.
        accuracy: of `evidence.published.read_accuracy`.
        mode: the one set.
        missing: what is said of modes that are not there.
    """
    published, rows, names = accuracy["omnidocbench"], [], []
    for name, timing in timings.items():
        value, low, high = timing.expected_pages_per_day[:3]
        label, workload, theirs = name.replace("_", "-").title(), timing.estimate.workload, published[name]
        about = {"mode": label, "day": f"{si(value)} ({si(low)} to {si(high)})", "theirs": f"{theirs['tokens']:,} there"}
        about["ratio"] = f"{workload.output_tokens / vision_tokens(workload):.2g}"
        rows += [{"kind": kind, "distance": theirs[kind], "pages": value, "low": low, "high": high, **about} for kind in LANGUAGES]
        names.append({"pages": high, "distance": max(theirs[kind] for kind in LANGUAGES), "text": f"{label}, {about['ratio']}"})
    here = timings.get(mode) or next(iter(timings.values()))
    findings = [f"{row['mode']} {row['distance']:.3g} at {si(row['pages'])} a day" for row in rows if row["kind"] == "English"]
    params = {"most": 1.35 * max(row["high"] for row in rows), "highest": 1.15 * max(row["distance"] for row in rows)}
    read = "On Fox they read about 97 % within 10, about 60 % near 20 (table 2)"
    for row in accuracy["fox"]:
        if row["from"] <= here.estimate.workload.output_tokens < row["to"]:
            read += f"; of {row['from']} to {row['to']} text tokens: Tiny {100 * row['tiny']:.1f} %, Small {100 * row['small']:.1f} %"
    heading = title(
        f"Edit distance on English pages: {'; '.join(findings[:1] + findings[-1:])}",
        f"Beside a mode: text tokens for each vision token of this page ({workload_words(here.estimate.stages.row(0, named=True))})",
        read,
        f"Accuracy is theirs, on OmniDocBench's pages, not on this one: {accuracy['source']}, table 3",
        f"Pages a day are ours, on {here.hardware.label}. {rests_on(here, STAGES)}",
        *missing,
    )
    return Chart(_template(), heading, {"rows": rows, "names": names}, params)


def vision_tokens(workload: Workload) -> int:
    """Vision tokens as the paper counts them: without the separators of rows and views."""
    return workload.tiles * (queries(workload.tile_px) ** 2 if workload.tiles else 0) + queries(workload.global_px) ** 2


@cache
def _template() -> Template:
    x = x_of("pages", **from_zero("expected pages a day", "most"))
    up = from_zero("published edit distance, smaller is better", "highest") | {"axis": alt.Axis(format=".2f", tickCount=6)}
    y = y_of("distance", **up)
    rows, colour = alt.Chart(data("rows")), painted("kind", LANGUAGES, alt.Legend(orient="top"))
    about = tips(
        "mode", kind="pages in", distance="edit distance", day="pages a day", ratio="text tokens a vision token", theirs="vision tokens"
    )
    return compiled(
        rows.mark_rule(opacity=0.45).encode(x_of("low"), y, colour, alt.X2("high")),
        rows.mark_point(filled=True, size=90, opacity=1).encode(x, y, colour, about),
        alt.Chart(data("names")).mark_text(align="left", baseline="middle", dx=6, fontSize=12, color=INK).encode(x, y, WORDS),
        height=380,
    )
