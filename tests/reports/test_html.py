"""Markdown and HTML of reports: values stay text, tables and places of charts are set, and the page loads nothing."""

import re

import polars as pl
import pytest

from ocr_flops.reports import images
from ocr_flops.reports.html import html_page, markdown_html
from ocr_flops.reports.markdown import escape_markdown, sentence, table_markdown

HOSTILE = "</script><img src=x onerror=a()> [b](javascript:c()) ![d](e) `f` **g** _h_ <http://i.j> | &lt;k&gt;\n\n# l\n- m\\"


@pytest.mark.parametrize("place", ["{}", "# {}", "- {}", "| {} |\n| --- |\n| {} |", '![{}](#chart "x")', "**a** {}"])
def test_a_value_stays_text_wherever_it_stands(place):
    html = markdown_html(place.replace("{}", escape_markdown(HOSTILE)))
    shown = re.sub(r"<[^>]*>", " ", html)
    assert not re.search(r"<(img|a|script|code|em|h1>.*<h1)", html)
    assert "chart" in place or all(word in shown for word in ("&lt;img src=x", "[b](javascript:c())", "**g**", "_h_", "&amp;lt;k"))


def test_a_sentence_has_bold_and_code_and_nothing_else():
    html = markdown_html(sentence("**a `b_c` <i>** is `d&e` of [f](g), 7 % of 3 GB"))
    assert html == "<p><strong>a <code>b_c</code> &lt;i&gt;</strong> is <code>d&amp;e</code> of [f](g), 7\xa0% of 3\xa0GB</p>"


def test_a_table_has_numbers_on_the_right_and_headings_of_rows():
    frame = pl.DataFrame({"name": ["a|b", None], "count": [1_234_567, None], "rate": [0.5, 2.0]})
    text = table_markdown(frame, {"rate": "{:.1f}/s".format})
    assert text.splitlines() == ["| name | count | rate |", "| --- | ---: | ---: |", "| a\\|b | 1,234,567 | 0.5/s |", "| – | – | 2.0/s |"]
    html = markdown_html(text)
    assert '<th scope="row">a|b</th>' in html and html.count("right") == 6 and html.startswith('<div class="scroll">')


def test_an_image_of_a_name_is_the_place_of_a_chart():
    html = markdown_html('![what it shows](#flops "how to read it")\n\n![other](charts/x.svg)')
    assert 'class="chart" id="flops"' in html and "<figcaption>how to read it</figcaption>" in html and 'src="charts/x.svg"' in html


def test_a_page_needs_no_network_and_carries_its_data_safely():
    page = html_page(HOSTILE, "# a", {}, {"carried": {"text": HOSTILE}}, in_child=False).replace(images.vega_javascript(False), "")
    assert "default-src 'none'" in page and not re.search(r"<img|@import|url\(", page)
    assert page.count("<script") == page.count("</script>") == 4
