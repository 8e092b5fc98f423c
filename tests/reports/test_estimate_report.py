"""Reports: one file that needs no network, with the estimate's numbers in it, and nothing in it that was not meant."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from io import BytesIO

import altair as alt
import polars as pl
import pytest

import ocr_flops as of
from ocr_flops import cli, reports
from ocr_flops.app.setting import Setting
from ocr_flops.reports import Subject, estimate_report, estimate_settings, images
from ocr_flops.reports import html as elements
from ocr_flops.reports.as_json import as_json
from ocr_flops.reports.estimate_findings import findings
from ocr_flops.reports.gallery import gallery
from ocr_flops.spec.run_spec import load_run
from ocr_flops.units import si

MODEL = of.load_model("deepseek_ocr")
L4 = of.load_hardware("l4")
SUBJECTS = {
    "page": Setting().subject(MODEL, L4),
    "all modes, no device": Setting(attention="all").subject(MODEL),
    "published code": Setting(engine="remote_code", batch_size=8).subject(MODEL, L4),
    "fp32": Setting(dtype="fp32", mode="base").subject(MODEL, of.load_hardware("h200")),
    "no output": Setting(output_tokens=0, source="grid", columns=5, rows=7).subject(MODEL, L4),
    "too large": Setting(batch_size=512).subject(MODEL, L4),
    "vision": Subject(of.estimate(MODEL, of.Workload.from_grid(2, 1), "eager", stages=["vision"]), L4),
    "decode of nothing": Subject(of.estimate(MODEL, of.Workload.from_grid(2, 1, output_tokens=0), stages=["decode"]), L4),
    "mixed": Subject(of.estimate(MODEL, of.Workload.from_grid(2, 1), of.AttentionSpec("mixed", {"sam": "eager", "clip": "sdpa", "decoder": "flash"})), L4),
}


class Page(HTMLParser):
    """A page taken apart: elements that never close wrongly, text by element, addresses, JSON by id."""

    VOID = ("meta", "link", "br", "input")

    def __init__(self, html):
        super().__init__()
        self.open, self.texts, self.addresses, self.ids, self.data = [], [], [], [], {}
        self.rows = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [value for name, value in attributes.items() if name in ("src", "href", "action", "data", "srcset")]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append((tag, attributes))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "script":
            if attributes.get("type") == "application/json":
                self.data[attributes["id"]] = json.loads(text)
        elif tag != "style":
            self.texts.append(text)
            if any(name in ("td", "th") for name, _ in self.open):
                self.rows[-1][-1] += f" {text}" if self.rows[-1][-1] else text


@pytest.fixture(scope="module")
def pages():
    return {name: estimate_report.render_html(subject, made=date(2026, 1, 2), in_child=False) for name, subject in SUBJECTS.items()}


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_has_a_page_that_is_whole(pages, name):
    read = Page(pages[name])
    words = " ".join(read.texts)
    assert len(read.ids) == len(set(read.ids))
    assert set(read.data["charts"]) <= set(read.ids)
    assert "2026-01-02" in words and of.__version__ in words and "How far to trust it" in words
    assert not re.search(r"\d{7}|NaN|\bNone\b|undefined", words), re.search(r".*(\d{7}|NaN|None|undefined).*", words)


@pytest.mark.parametrize("name", SUBJECTS)
def test_nothing_is_loaded_from_anywhere(pages, name):
    html = pages[name]
    assert Page(html).addresses == ["data:,"]
    assert "Content-Security-Policy\" content=\"default-src 'none';" in html
    own = html.replace(images.javascript(False), "")
    assert set(re.findall(r"\w+://[^\s\"'<)]+", own)) <= {alt.SCHEMA_URL}
    assert not re.search(r"@import|url\(", own)
    assert 0.9e6 < len(html.encode()) < 2e6


def test_numbers_are_the_estimates_integers(pages):
    subject, read = SUBJECTS["page"], Page(pages["page"])
    assert read.data["estimate"] == json.loads(json.dumps(as_json(subject.estimate, subject.timing)))
    cells = {}
    for row in read.rows:
        cells.setdefault(row[0], " ".join(row))  # the first table of stages stands before that of modules
    for stage, row in subject.estimate.stage_numbers.items():
        for column in ("total_flops", "tensor_flops", "vector_flops", "io_bytes", "peak_activation_bytes", "operators"):
            assert f"{row[column]:,}" in cells[stage] or column == "operators"
    modules = [row for row in read.rows if row[0] in ("vision", "prefill", "decode")]
    for (stage, _), row in subject.estimate.module_numbers.items():
        wanted = [
            f"{row[column]:,}"
            for column in ("tensor_flops", "vector_flops", "torch_flops", "operators", "io_bytes", "peak_activation_bytes", "weight_bytes")
        ]
        assert any(cells[0] == stage and cells[2:9] == wanted for cells in modules), (stage, wanted)
    whole = {column: sum(row[column] for row in subject.estimate.stage_numbers.values()) for column in ("total_flops", "io_bytes")}
    assert all(f"{number:,}" in cells["all stages"] for number in whole.values())
    for mode, estimate in subject.by_mode.items():
        named = "sdpa, this report" if mode == "sdpa" else mode
        assert f"{estimate.footprint.total_bytes:,}" in cells[named]


def test_findings_are_true():
    subject = SUBJECTS["page"]
    words = " ".join(findings(subject))
    eager, flash = (subject.by_mode[mode].stage_numbers for mode in ("eager", "flash"))
    moved = [sum(table[stage]["io_bytes"] for stage in ("vision", "prefill")) for table in (eager, flash)]
    assert f"{si(moved[0] - moved[1], 'B')} less in vision and prefill** ({100 - 100 * moved[1] / moved[0]:.0f} %)" in words
    assert f"**The first token comes after {subject.timing.ttft_seconds * 1e3:.0f} ms**" in words
    assert "This report is about what transformers, UnlimitedOcr class runs by itself: sdpa." in words
    assert "by itself: sdpa in SAM, sdpa in CLIP, eager in the decoder." in " ".join(findings(SUBJECTS["published code"]))
    assert "about eager in SAM, sdpa in CLIP, flash in the decoder." in " ".join(findings(SUBJECTS["mixed"]))
    assert "to spare" in words
    assert "does not fit" in " ".join(findings(SUBJECTS["too large"]))


def test_text_of_unknown_origin_stays_text():
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
    model = replace(MODEL, label=evil)
    subject = Subject(of.estimate(model, of.Workload.from_grid(2, 1)), replace(L4, label=evil, name=evil))
    html = estimate_report.render_html(subject, in_child=False)
    read = Page(html)
    assert not any(tag in html.replace(images.javascript(False), "") for tag in ("<script>alert", "<img"))
    assert read.addresses == ["data:,"] and evil in " ".join(read.texts)
    assert read.data["estimate"]["hardware"] == evil
    assert estimate_settings.overrides(subject) is None and "No command repeats this report" in html


def test_cells_facts_and_headings_are_text():
    evil = "<b>&\"'"
    parts = [
        elements.table([elements.text(evil)], [[elements.Cell(evil, evil)]]),
        elements.facts({evil: {evil: evil}}),
        elements.section(evil, "x"),
        elements.folded(evil),
        elements.figure(evil, evil),
        elements.points([evil]),
    ]
    for part in parts:
        assert "<b>" not in part and part.count("&lt;b&gt;&amp;") >= 1
    assert parts[0].count("&lt;b&gt;") == parts[1].count("&lt;b&gt;") == 3


def test_inline_marks_bold_and_code_and_nothing_else():
    assert elements.inline("**a <b>** `c&d` 7 % of 3 GB") == "<strong>a &lt;b&gt;</strong> <code>c&amp;d</code> 7\xa0% of 3\xa0GB"


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["workload=gundam_m", "workload.columns=3", "workload.rows=2", "engine=remote_code", "attention=vendor", "dtype=fp16"],
        ["attention.sam=eager", "attention.decoder=flash", "cache=static", "prefill_logits=all", "stages=[vision,prefill]"],
        ["workload=tiny", "workload.global_px=768", "workload.output_tokens=0", "workload.batch_size=7", "model=tiny_test"],
        ["hardware=h200", "hardware.memory_bytes=1e9", "hardware.matrix_flops_per_second.bf16=1e15", "attention=flash"],
    ],
)
def test_the_command_on_the_page_repeats_it(overrides):
    run = load_run(overrides)
    estimate = of.estimate(
        run.model,
        run.workload,
        run.attention,
        engine=run.engine,
        dtype=run.dtype,
        cache=run.cache,
        prefill_logits=run.prefill_logits,
        stages=run.stages,
    )
    again = load_run(estimate_settings.overrides(Subject(estimate, run.hardware)))
    same = of.estimate(
        again.model, again.workload, again.attention, engine=again.engine, dtype=again.dtype, cache=again.cache,
        prefill_logits=again.prefill_logits, stages=again.stages,
    )  # fmt: skip
    assert same.config == estimate.config and same.chosen_stages == estimate.chosen_stages and again.hardware == run.hardware
    assert same.module_numbers == estimate.module_numbers
    assert again.workload.image_width_px == run.workload.image_width_px


def test_a_device_with_a_figure_its_config_has_no_key_for_has_no_command():
    t4 = of.load_hardware("t4").edited("bf16", matrix_flops_per_second=1e12)
    assert estimate_settings.overrides(Subject(SUBJECTS["page"].estimate, t4)) is None


def test_a_subject_is_one_point_on_a_device_that_computes_in_its_precision():
    with pytest.raises(of.SpecError, match="points; a report is about one"):
        Subject(of.estimate(MODEL, Setting().neighbours))
    with pytest.raises(of.SpecError, match="bf16"):
        Setting().subject(MODEL, of.load_hardware("t4"))


def test_modes_that_vision_cannot_tell_apart_are_one_line():
    assert SUBJECTS["published code"].apart_in_vision == ["eager", "sdpa", "flash"]
    assert SUBJECTS["mixed"].apart_in_vision == ["eager", "sdpa", "flash", "mixed"]


def test_the_apps_setting_gives_the_same_page_as_the_command_line(tmp_path, capsys):
    setting = Setting(columns=3, rows=1, source="grid", gpu="l4", attention="eager")
    assert (
        cli.main(["report", "workload.columns=3", "workload.rows=1", "hardware=l4", "attention=eager", "--out", str(tmp_path / "x.html")])
        == 0
    )
    assert capsys.readouterr().out == f"{tmp_path / 'x.html'}\n"
    written = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert written == estimate_report.render_html(setting.subject(MODEL, setting.device), in_child=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.html"]


def test_the_command_writes_every_chart_beside_the_page(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "workload=tiny", "hardware=l4", "--charts", "svg"]) == 0
    told = capsys.readouterr().out.splitlines()
    subject = Setting(mode="tiny").subject(MODEL, L4)
    assert sorted(told) == sorted(["report.html", *(f"report_{name}.svg" for name in gallery(subject))])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(told)
    assert all((tmp_path / name).stat().st_size > 1000 for name in told)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["workload.columns=0"], "columns"),
        (["hardware=t4"], "bf16"),
        (["hardware=nothing"], "nothing"),
        (["--out", "file/below"], "--out: cannot write file/below/report.html"),
    ],
)
def test_what_stops_a_report_is_one_line(tmp_path, capsys, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["report", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("ocr-flops report: ") and said in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert cli.main(["report", "--out", str(tmp_path)]) == 2
    assert "choose a folder you can write to" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["page", "no output", "vision", "fp32"])
def test_the_gallery_draws(name):
    found = gallery(SUBJECTS[name])
    drawn = reports.chart_images(found, "svg", in_child=False)
    assert list(drawn) == list(found) and all(re.fullmatch(r"[a-z_]+", name) for name in found)
    assert all(b"<svg" in image and b'fill="white"' in image and b"NaN" not in image for image in drawn.values())


def test_a_chart_is_drawn_alike_in_a_child_and_here():
    chart = {"memory": gallery(SUBJECTS["page"])["memory"]}
    for format, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        child, here = (reports.chart_images(chart, format, width_px=600, scale=1, in_child=where)["memory"] for where in (True, False))
        assert child == here and here.startswith(start)


def test_the_app_never_loads_the_drawing_engine():
    code = """
import sys, ocr_flops as of
from ocr_flops.reports import Subject, chart_images, render_html
from ocr_flops.reports.gallery import gallery
from ocr_flops.app.setting import Setting
subject = Setting().subject(of.load_model())
assert len(render_html(subject)) > 1e6 and chart_images({"tiling": gallery(subject)["tiling"]})["tiling"].startswith(b"<svg")
assert not {"vl_convert", "torch", "marimo"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_child_that_fails_says_how():
    with pytest.raises(images.DrawingError, match=r"drawing failed \(exit code 1\): .+"):
        images._done([{"kind": "svg", "spec": {"mark": 3}}], True)
    with pytest.raises(of.SpecError, match="format: 'pdf' is not one of svg, png"):
        reports.chart_images({}, "pdf")


def test_drawing_loads_nothing():
    with pytest.raises(images.DrawingError, match="External data url not allowed"):
        images._done([{"kind": "svg", "spec": {"data": {"url": "http://127.0.0.1:9/x.csv"}, "mark": "point"}}], True)


@pytest.mark.parametrize("format", ["csv", "parquet", "json"])
def test_tables_come_back_as_they_were(format):
    frame = SUBJECTS["page"].timing.modules.with_columns(big=pl.lit(2**62 - 1), kind=pl.lit("a").cast(pl.Enum(["a"])))
    content = reports.table_bytes(frame, format)
    again = {
        "csv": pl.read_csv,
        "parquet": pl.read_parquet,
        "json": lambda file: pl.DataFrame(json.loads(file.read()), infer_schema_length=None),
    }[format](BytesIO(content))
    assert again.columns == frame.columns and again.rows() == frame.rows()
    assert again["stage"].dtype == again["kind"].dtype == pl.String and again["big"].dtype.is_integer()


def test_another_format_is_refused():
    with pytest.raises(of.SpecError, match="format: 'xlsx' is not one of csv, parquet, json"):
        reports.table_bytes(pl.DataFrame(), "xlsx")
