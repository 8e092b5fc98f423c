"""Charts as SVG and PNG: drawn alike here and in a child process, which the app uses, and without a network."""

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import ocr_flops as of
from ocr_flops.reports import images
from ocr_flops.reports.estimate_charts import all_charts
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.images import chart_images

SUBJECTS = {
    "page": {},
    "no output": {"output_tokens": 0},
    "vision": {"stages": ["vision"]},
    "fp32": {"dtype": "fp32", "mode": "base"},
}


def subject(model, mode="gundam", output_tokens=256, **options):
    page = of.Workload.from_image(1654, 2339, mode, output_tokens=output_tokens)
    return Subject(of.estimate(model, page, **options), of.load_hardware("l4"))


@pytest.mark.parametrize(
    "name", ["page", *(pytest.param(name, marks=pytest.mark.verification) for name in ("no output", "vision", "fp32"))]
)
def test_every_chart_is_drawn_under_a_name_that_serves_as_a_file_name(model, name):
    charts = all_charts(subject(model, **SUBJECTS[name]))
    drawn = chart_images(charts, "svg", in_child=False)
    assert list(drawn) == list(charts) and all(re.fullmatch(r"[a-z_]+", name) for name in charts)
    assert all(b"<svg" in image and b'fill="white"' in image and b"NaN" not in image for image in drawn.values())


def test_a_chart_is_drawn_alike_in_a_child_and_here(model):
    chart = {"memory": all_charts(subject(model))["memory"]}
    for format, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        child, here = (chart_images(chart, format, width_px=600, scale=1, in_child=where)["memory"] for where in (True, False))
        assert child == here and here.startswith(start)


def test_a_chart_says_below_where_it_comes_from(model):
    chart = {"memory": all_charts(subject(model))["memory"]}
    below = images.provenance("NVIDIA L4 & <b>.")
    drawn = chart_images(chart, "svg", below=below, in_child=False)["memory"].decode()
    plain = chart_images(chart, "svg", in_child=False)["memory"].decode()
    assert plain in drawn and f"NVIDIA L4 &amp; &lt;b&gt;. ocr_flops {of.__version__}, 20" in drawn
    assert chart_images(chart, "png", below=below, scale=1, in_child=False)["memory"].startswith(b"\x89PNG")


def test_the_app_never_loads_the_drawing_engine():
    code = """
import sys, ocr_flops as of
from ocr_flops.reports.estimate_charts import all_charts
from ocr_flops.reports.estimate_report import report_html
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.images import chart_images
subject = Subject(of.estimate(of.load_model(), of.Workload.from_image(1654, 2339)))
assert len(report_html(subject)) > 1e6 and chart_images({"tiling": all_charts(subject)["tiling"]})["tiling"].startswith(b"<svg")
assert not {"vl_convert", "torch", "marimo"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("spec", "message"), [
    ({"mark": 3}, r"drawing failed \(exit code 1\): .+"),
    ({"data": {"url": "http://127.0.0.1:9/x.csv"}, "mark": "point"}, "External data url not allowed"),
])  # fmt: skip
def test_a_child_that_fails_says_how(spec, message):
    with pytest.raises(images.DrawingError, match=message):
        images.run_jobs([{"kind": "svg", "spec": spec}], in_child=True)


def test_another_format_is_refused():
    with pytest.raises(of.SpecError, match="format: 'pdf' is not one of svg, png"):
        chart_images({}, "pdf")


def test_visitors_who_come_together_wait_for_one_library(monkeypatch, tmp_path):
    def run_jobs(jobs, in_child):
        made.append(jobs)
        time.sleep(0.1)
        return [b"vega"]

    made = []
    monkeypatch.setattr(images, "run_jobs", run_jobs)
    monkeypatch.setattr(images, "user_cache_dir", lambda: tmp_path)
    with ThreadPoolExecutor(8) as visitors:
        scripts = [visitors.submit(images.vega_javascript.__wrapped__) for _ in range(8)]
    assert [one.result() for one in scripts] == ["vega"] * 8 and len(made) == 1
