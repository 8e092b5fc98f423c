"""Pages a day on a device, against batch size and against output length."""

from collections.abc import Mapping
from functools import cache

import altair as alt

from ocr_flops.charts.chart import Chart, Template, compiled, data, title
from ocr_flops.charts.encoding import from_zero, tips, x_of, y_of
from ocr_flops.charts.overlay import mark_layers
from ocr_flops.charts.theme import STAGE_COLOURS, rests_on
from ocr_flops.spec.specs import STAGES
from ocr_flops.timing.planning import largest_batch
from ocr_flops.timing.timing import Timing
from ocr_flops.units import counted, interval, workload_words

ALONG = {"batch_size": "pages in a batch", "output_tokens": "output tokens of a page"}


def throughput(timing: Timing, along: str, points: Mapping[int, Timing]) -> Chart:
    """Expected pages a day, with their range.

    Args:
        timing: the point shown.
        along: what varies, one of `ALONG`.
        points: the same at ascending values of it, all of which the device holds.
    """
    rows = []
    for at, one in points.items():
        value, low, high = (found := one.expected_pages_per_day)[:3]
        rows.append({"at": at, "pages": value, "low": low, "high": high, "about": interval(found, "")})
    here, last = getattr(timing.estimate.workload, along), rows[-1]
    now, of_now = "", f"batch {here:,}" if along == "batch_size" else counted(here, "output token")
    if timing.fits:
        now = f"{interval(timing.expected_pages_per_day, '')} pages a day with {of_now}; "
    finding = f"{now}{last['about']}{'' if now else ' pages a day'} with {last['at']:,}"
    beyond = f"On {timing.hardware.label}"
    if along == "batch_size":
        beyond = f"{timing.hardware.label} holds at most {largest_batch(timing.estimate, timing.hardware.memory_bytes):,}"
    words = workload_words(timing.estimate.stages.row(0, named=True))
    mark = [{"at": here, "text": f"now {here:,}"}] if here <= last["at"] else []
    params = {"most": max(row["high"] for row in rows), "last": last["at"] or 1}
    return Chart(
        _template(along),
        title(finding, f"{words}. {beyond}. Band: the range", rests_on(timing, STAGES)),
        {"rows": rows, "mark": mark},
        params,
    )


@cache
def _template(along: str) -> Template:
    x = x_of(
        "at",
        title=ALONG[along],
        scale=alt.Scale(domain=[0, alt.ExprRef("last")], nice=False),
        axis=alt.Axis(format=",d", tickMinStep=1, grid=False),
    )
    options = from_zero("pages a day", "most", nice=True)
    rows, colour = alt.Chart(data("rows")), STAGE_COLOURS["vision"]
    about = [alt.Tooltip("at", type="quantitative", title=ALONG[along], format=",d"), *tips(about="pages a day")]
    return compiled(
        rows.mark_area(color=colour, opacity=0.2).encode(x, y_of("low", **options), alt.Y2("high")),
        rows.mark_line(color=colour, strokeWidth=2).encode(x, y_of("pages", **options)),
        rows.mark_point(color=colour, filled=True, size=40, opacity=1).encode(x, y_of("pages", **options), about),
        *mark_layers(x),
        height=240,
    )
