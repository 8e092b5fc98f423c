"""What a reader sees of a chart."""

import functools
import json
import re

import altair as alt
import vl_convert


def texts(chart, width=700, **chosen):
    """The text of a drawn chart, in one line.

    Args:
        chart: a `Chart`.
        width: in px.
        chosen: values of parameters in place of the chart's own.
    """
    spec = json.loads(json.dumps(chart.to_dict(), allow_nan=False))
    for one in spec["params"]:
        if one["name"] in chosen:
            one["value"] = chosen[one["name"]]
    svg = vl_convert.vegalite_to_svg(spec | {"width": width})
    return re.sub(r"\s+", " ", " ".join(re.findall(r">([^<>]+)</(?:text|tspan)>", svg)))


def headline(chart):
    """A chart's title and what is below it, in one line."""
    return " ".join([*chart.title.text, *chart.title.subtitle])


@functools.cache
def _validate(template):
    """Templates are what Altair checks slowly; the charts of one differ in words, rows and numbers alone."""
    alt.LayerChart.validate(template.spec)


def assert_draws(chart):
    """A chart is valid, its template has a place for each of its datasets and no other, and it shows no raw number."""
    spec = chart.to_dict()
    if isinstance(spec["title"]["subtitle"], list):  # Vega-Lite takes an expression there, its schema does not
        _validate(chart.template)
    assert {layer["data"]["name"] for layer in spec["layer"]} == set(spec["datasets"])
    shown = texts(chart)
    assert not re.search(r"\d{7}|NaN|undefined|null|Infinity", shown), shown
