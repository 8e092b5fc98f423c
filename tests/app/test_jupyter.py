"""What Jupyter shows beside charts: HTML of notices and tables."""

import json
import re

from ocr_flops.app import jupyter, spot_checks
from ocr_flops.app.links import Link
from ocr_flops.app.served import Load
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
    assert "1,551<" in html and "<th>module</th>" in html and "evidence" not in html


def test_a_notebook_of_the_app_begins_with_its_setting():
    setting = Setting(gpu="h200", batch_size=5, operator_us=3.5, attention="all", memory_bytes=2e11)
    shared = Link(setting, pins=(("before", Setting()),), load=Load(engine="sglang", rate=2.0))
    source = "".join(json.loads(jupyter.linked_notebook(shared))["cells"][1]["source"])
    link = re.search('^LINK = "(.+)"', source, re.M)[1]
    assert jupyter.begin(link) == jupyter.begin(f"http://localhost:2718/?{link}#/4") == shared and jupyter.begin("") == Link()


def test_what_a_link_has_wrong_is_kept():
    assert jupyter.begin("http://h/?gpu=h200&rows=many#/4").setting == Setting(gpu="h200")
    assert "rows" in jupyter.begin("http://h/?gpu=h200&rows=many").notices[0]


def test_measured_points_are_judged(model):
    assert jupyter.measured_html([]) == ""
    good, bad = (spot_checks.build_frame(model, result(Setting(), **how)) for how in ({}, {"off": 1}))
    assert "as integers." in jupyter.measured_html([good]) and "of-notice" not in jupyter.measured_html([good])
    assert "differ." in jupyter.measured_html([good, bad]) and "of-good" not in jupyter.measured_html([good, bad])
