"""Which mode: published accuracy of each against the pages a day that it is expected to do."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import altair as alt

from ocr_flops.charts.chart import Chart, Template, compiled, data, title
from ocr_flops.charts.encoding import WORDS, from_zero, painted, tips, x_of, y_of
from ocr_flops.charts.theme import INK, STAGE_COLOURS
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.spec.ranged import Ranged
from ocr_flops.spec.tiling import queries
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.serving.result import CUTTING
from ocr_flops.units import attention_words, counted, interval, si

SIDES = {True: {"align": "left", "dx": 5}, False: {"align": "right", "dx": -5}}  # of names: page by page, modes are close at the right
LANGUAGES = {"English": STAGE_COLOURS["vision"], "Chinese": STAGE_COLOURS["prefill"]}


class ModePages(NamedTuple):
    """What runs the page in a mode, what the mode makes of it, how many such pages a day are expected, and what limits those served."""

    config: RunConfig
    workload: Workload
    pages_per_day: Ranged
    limited_by: str = ""


def accuracy_by_mode(found: Mapping[str, ModePages], where: str, accuracy: Mapping[str, Any], also: Sequence[str] = ()) -> Chart:
    """Published edit distance against expected pages a day: of an engine that serves with as many in flight as fit, else page by page.

    Args:
        found: by mode, all of one engine.
        where: the device's label.
        accuracy: of `evidence.published.read_accuracy`.
        also: what else is said: of modes that are not there, of other ways to run them.
    """
    published, rows, names, ratios, cut = accuracy["omnidocbench"], [], [], [], []
    for name, (_, workload, days, limited_by) in found.items():
        label, theirs, (value, low, high) = mode_label(name), published[name], days[:3]
        about = {"mode": label, "day": interval(days, ""), "theirs": f"{theirs['tokens']:,} there"}
        about["ratio"] = f"{workload.output_tokens / vision_tokens(workload):.2g}"
        rows += [{"kind": kind, "distance": theirs[kind], "pages": value, "low": low, "high": high, **about} for kind in LANGUAGES]
        least, most = sorted(theirs[kind] for kind in LANGUAGES)
        names.append({"pages": value, "distance": most, "least": least, "text": label})
        ratios.append(f"{label} {about['ratio']}")
        cut += [label] * (limited_by == CUTTING)
    findings = [f"{row['mode']} {row['distance']:.3g} at {si(row['pages'])} a day" for row in rows if row["kind"] == "English"]
    params = {"most": 1.1 * max(row["high"] for row in rows), "highest": 1.15 * max(row["distance"] for row in rows)}
    tokens, read = workload.output_tokens, "On Fox they read about 97 % of the text within 10 of them, about 60 % near 20 (table 2)"
    for row in accuracy["fox"]:
        if row["from"] <= tokens < row["to"]:
            read += f"; of {row['from']} to {row['to']} text tokens: Tiny {100 * row['tiny']:.1f} %, Small {100 * row['small']:.1f} %"
    config = next(iter(found.values())).config
    under, is_served = config.model.under(config.engine), bool(config.engine.block_tokens)
    heading = title(
        f"Edit distance on English pages: {'; '.join(findings[:1] + findings[-1:])}",
        f"Pages a day are ours: {counted(tokens, 'output token')} a page on {where}, "
        + (f"served by {under} in {config.dtype}, as many pages in flight as fit" * is_served)
        + (f"page by page under {under}, {attention_words(config.attention.name)}, {config.dtype}" * (not is_served)),
        *([f"One CPU thread that cuts pages limits {', '.join(cut)}: see Serving"] if cut else []),
        *also,
        f"Text tokens for each vision token of this page: {', '.join(ratios)}",
        read,
        f"Accuracy is theirs, on OmniDocBench's pages, not on this one: {accuracy['source']}, table 3",
    )
    return Chart(_template(is_served), heading, {"rows": rows, "names": names}, params)


def mode_label(name: str) -> str:
    """What a mode is called in the paper: Gundam-M."""
    return name.replace("_", "-").title()


def vision_tokens(workload: Workload) -> int:
    """Vision tokens as the paper counts them: without the separators of rows and views."""
    return workload.tiles * (queries(workload.tile_px) ** 2 if workload.tiles else 0) + queries(workload.global_px) ** 2


@cache
def _template(is_served: bool) -> Template:
    x = x_of("pages", **from_zero("expected pages a day" + ", page by page" * (not is_served), "most"))
    up = from_zero("published edit distance, smaller is better", "highest") | {"axis": alt.Axis(format=".2f", tickCount=6)}
    y = y_of("distance", **up)
    rows, names = alt.Chart(data("rows")), alt.Chart(data("names"))
    colour = painted("kind", LANGUAGES, alt.Legend(orient="top", symbolOpacity=1))
    about = tips(
        "mode", kind="pages in", distance="edit distance", day="pages a day", ratio="text tokens a vision token", theirs="vision tokens"
    )
    return compiled(
        rows.mark_rule(opacity=0.75).encode(x_of("low"), y, colour, alt.X2("high")),
        rows.mark_point(filled=True, size=90, opacity=1).encode(x, y, colour, about),
        names.mark_rule(opacity=0.45, color=INK).encode(x, y, alt.Y2("least")),
        names.mark_text(**SIDES[is_served], baseline="bottom", dy=-5, fontSize=12, color=INK).encode(x, y, WORDS),
        height=380,
    )
