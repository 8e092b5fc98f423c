"""What Jupyter shows: HTML of figures and tables, and charts whose JavaScript is complete. How they are drawn: tests/browser."""

import re

import pytest

import ocr_flops as of
from ocr_flops.app import jupyter, spot_checks, views
from ocr_flops.app.setting import Setting
from ocr_flops.reports import tables
from ocr_flops.reports.html import table_html
from tests.support.results import result


def test_a_notice_is_text():
    assert "<img" not in jupyter.notice_html("<img src=x onerror=alert(1)>")


def test_a_table_keeps_every_row_and_formats_its_numbers(model):
    table = tables.modules_table(Setting().estimate(model, "sdpa").modules)
    html = table_html(table)
    assert html.count("<tr>") == table.height + 1 and html.count("<td") == table.height * (table.width - 1)
    assert "1,551<" in html and "<th>evidence</th>" in html


def test_measured_points_are_judged(model):
    assert jupyter.measured_html([]) == ""
    good, bad, unseen = (spot_checks.frame(model, result(Setting(), **how)) for how in ({}, {"off": 1}, {"missed": ["_grouped_mm"]}))
    assert "as integers." in jupyter.measured_html([good]) and "of-notice" not in jupyter.measured_html([good])
    assert "differ." in jupyter.measured_html([good, bad]) and "of-good" not in jupyter.measured_html([good, bad])
    assert "Not seen by torch" in jupyter.measured_html([unseen]) and "_grouped_mm" in jupyter.measured_html([unseen])


def test_charts_carry_their_javascript():
    """Nothing is imported: the only addresses in it are names (of XML, of a schema) and a link that is not offered."""
    script = jupyter.Charts()._esm
    assert len(script) > 500_000 and "(panel,spec,options)" in re.sub(r"\s", "", script)
    assert not re.search(r"""(?:\bfrom|\bimport)\s*\(?\s*["'`][^"'`]*//""", script)
    assert not re.search(r"<script|esm\.sh|jsdelivr|unpkg", script)


@pytest.mark.parametrize("values", [{}, {"mode": "tiny"}, {"attention": "all"}, {"gpu": "t4"}, {"output_tokens": 0}])
def test_every_view_is_shown_as_it_is_drawn(model, values):
    shown, charts = views.Shown(model, Setting(**values)), jupyter.Charts()
    for name, view in views.VIEWS.items():
        drawn = view(shown)
        charts.show(drawn)
        assert charts.specs == [chart.to_dict() for chart in drawn] and drawn, name


def test_what_is_not_allowed_is_said_when_it_is_read(model):
    with pytest.raises(of.SpecError, match="prompt_tokens: -1"):
        jupyter.Charts().show(views.VIEWS["Overview"](views.Shown(model, Setting(prompt_tokens=-1))))
    shown = views.Shown(model, Setting(gpu="t4"))
    assert "bf16" in shown.without_times and shown.device is None and shown.timings == [] and shown.estimates
