"""The report on an estimate: whole for every subject, with the estimate's numbers in it, and without a need for a network."""

import json
import os
import re
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import altair as alt
import pytest

import ocr_flops as of
from ocr_flops import cli
from ocr_flops.app.setting import Setting
from ocr_flops.evidence.calibration.conditions import with_records
from ocr_flops.reports import images
from ocr_flops.reports.estimate_charts import all_charts
from ocr_flops.reports.estimate_report import report_html, report_markdown, write_findings
from ocr_flops.reports.estimate_settings import find_overrides
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.export import describe_estimate
from ocr_flops.spec.run_spec import load_run
from ocr_flops.timing.estimate import estimate_run, time_run
from ocr_flops.units import seconds, si

MODEL, L4 = of.load_model("deepseek_ocr"), of.load_hardware("l4")
MIXED = of.AttentionSpec("mixed", {"sam": "eager", "clip": "sdpa", "decoder": "flash"})
SUBJECTS = {
    "page": Setting().subject(MODEL, L4),
    "all modes, no device": Setting(attention="all").subject(MODEL),
    "published code": Setting(engine="remote_code", batch_size=8).subject(MODEL, L4),
    "fp32": Setting(dtype="fp32", mode="base").subject(MODEL, of.load_hardware("h200")),
    "no output": Setting(output_tokens=0, source="grid", columns=5, rows=7).subject(MODEL, L4),
    "too large": Setting(batch_size=512).subject(MODEL, L4),
    "vision": Subject(of.estimate(MODEL, of.Workload.from_grid(2, 1), "eager", stages=["vision"]), L4),
    "decode of nothing": Subject(of.estimate(MODEL, of.Workload.from_grid(2, 1, output_tokens=0), stages=["decode"]), L4),
    "mixed": Subject(of.estimate(MODEL, of.Workload.from_grid(2, 1), MIXED), L4),
}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"' [a](javascript:b()) | `c` **d**"


class Page(HTMLParser):
    """A page taken apart: its words, the rows of its tables, addresses, ids, and JSON by id."""

    VOID = ("meta", "link", "br", "hr", "input", "img")

    def __init__(self, html):
        super().__init__()
        self.open, self.words, self.addresses, self.ids, self.data, self.rows = [], "", [], [], {}, []
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
        assert tag in self.VOID or self.open.pop()[0] == tag

    def handle_data(self, text):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if attributes.get("type") == "application/json":
            self.data[attributes["id"]] = json.loads(text)
        elif tag not in ("script", "style"):
            self.words += f" {text}"
            if any(name in ("td", "th") for name, _ in self.open):
                self.rows[-1][-1] += text


@pytest.fixture(scope="module")
def pages():
    return {name: report_html(subject, made=date(2026, 1, 2), in_child=False) for name, subject in SUBJECTS.items()}


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_subject_has_a_page_that_is_whole_and_loads_nothing(pages, name):
    html, page = pages[name], Page(pages[name])
    assert len(page.ids) == len(set(page.ids)) and set(page.data["charts"]) <= set(page.ids)
    assert "2026-01-02" in page.words and of.__version__ in page.words and "How far to trust it" in page.words
    wrong = re.search(r".*(\d{7}|NaN|\bNone\b|undefined|\*\*|\{\{|\|).*", page.words)
    assert not wrong, wrong
    own = html.replace(images.vega_javascript(False), "")
    assert page.addresses == ["data:,"] and "Content-Security-Policy\" content=\"default-src 'none';" in html
    assert set(re.findall(r"\w+://[^\s\"'<)]+", own)) <= {alt.SCHEMA_URL} and not re.search(r"@import|url\(", own)
    assert 0.9e6 < len(html.encode()) < 2.5e6


def test_numbers_are_the_estimates_integers(pages):
    subject, page = SUBJECTS["page"], Page(pages["page"])
    assert page.data["estimate"] == json.loads(json.dumps(describe_estimate(subject.estimate, subject.timing)))
    stages = {}
    for row in page.rows:
        stages.setdefault(row[0], []).append(" ".join(row))
    stages = {name: " ".join(rows[:2]) for name, rows in stages.items()}  # times and work stand before the table of modules
    for stage, row in subject.estimate.stage_numbers.items():
        for column in ("total_flops", "tensor_flops", "vector_flops", "io_bytes", "peak_activation_bytes", "operators"):
            assert f"{row[column]:,}" in stages[stage], (stage, column)
    for column in ("total_flops", "io_bytes", "operators"):
        assert f"{sum(row[column] for row in subject.estimate.stage_numbers.values()):,}" in stages["all stages"]
    for (stage, _), row in subject.estimate.module_numbers.items():
        columns = ("tensor_flops", "vector_flops", "torch_flops", "operators", "io_bytes", "peak_activation_bytes", "weight_bytes")
        wanted = [f"{row[column]:,}" for column in columns]
        assert any(cells[0] == stage and cells[2:9] == wanted for cells in page.rows), (stage, wanted)
    for mode, estimate in subject.by_mode.items():
        assert f"{estimate.footprint.total_bytes:,}" in stages["sdpa, this report" if mode == "sdpa" else mode]


@pytest.mark.parametrize("name", SUBJECTS)
def test_markdown_has_the_headings_and_exact_numbers_of_the_page(pages, name):
    text, words = report_markdown(SUBJECTS[name], made=date(2026, 1, 2)), Page(pages[name]).words
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    assert len(headings) >= 6 and all(heading in words for heading in headings)
    exact = r"\d{1,3}(?:,\d{3}){2,}"
    assert set(re.findall(exact, text)) == set(re.findall(exact, words))


def test_findings_are_true():
    subject = SUBJECTS["page"]
    words = write_findings(subject)
    eager, flash = (subject.by_mode[mode].stage_numbers for mode in ("eager", "flash"))
    moved = [sum(numbers[stage]["io_bytes"] for stage in ("vision", "prefill")) for numbers in (eager, flash)]
    assert f"{si(moved[0] - moved[1], 'B')} less in vision and prefill** ({100 - 100 * moved[1] / moved[0]:.0f} %)" in words
    assert seconds(subject.timing.ttft_seconds) in words and "in bf16" in words and "flash" in words and "modelled" in words
    assert "runs by itself: sdpa." in words and "to spare" in words
    assert "by itself: sdpa in SAM, sdpa in CLIP, eager in the decoder." in write_findings(SUBJECTS["published code"])
    assert "about eager in SAM, sdpa in CLIP, flash in the decoder." in write_findings(SUBJECTS["mixed"])
    assert "flash" not in write_findings(SUBJECTS["fp32"])  # no flash kernel takes fp32
    assert "does not fit" in write_findings(SUBJECTS["too large"])


def test_a_model_without_a_lean_kernel_is_compared_with_nothing():
    subject = Subject(of.estimate("got_ocr2", of.Workload.from_image(1654, 2339, batch_size=2)), L4)  # its class has eager alone
    text = report_markdown(subject, made=None)
    assert "2 pages take" in text and "gainst eager" not in text and "\n: page of" not in text
    assert "tiling" not in all_charts(subject)


def test_text_of_unknown_origin_stays_text():
    subject = Subject(of.estimate(replace(MODEL, label=HOSTILE), of.Workload.from_grid(2, 1)), replace(L4, label=HOSTILE, name=HOSTILE))
    html = report_html(subject, in_child=False)
    page = Page(html)
    assert not re.search("<script>alert|<img|<a ", html.replace(images.vega_javascript(False), ""))
    assert page.addresses == ["data:,"] and HOSTILE in page.words
    assert page.data["estimate"]["hardware"] == HOSTILE
    assert find_overrides(subject) is None and "ocr-flops report" not in page.words


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["workload=gundam_m", "workload.columns=3", "workload.rows=2", "engine=remote_code", "attention=vendor", "dtype=fp16"],
        ["attention.sam=eager", "attention.decoder=flash", "cache=static", "prefill_logits=all", "stages=[vision,prefill]"],
        ["workload=tiny", "workload.global_px=768", "workload.output_tokens=0", "workload.batch_size=7", "model=tiny_test"],
        ["hardware=h200", "hardware.memory_bytes=1e9", "hardware.matrix_flops_per_second.bf16=1e15", "attention=flash"],
        ["hardware=h200", "host=graphs", "host.launch_us=9", "efficiency=peak", "efficiency.matrix=0.5"],
        ["hardware=h200", "host.operator_us={value: 14, low: 7, high: 20}", "efficiency.bandwidth=0.7"],
        ["hardware=l4", "host=measured", "host.step_us=0", "engine=remote_code"],
    ],
)
def test_the_command_on_the_page_repeats_it(overrides):
    run = with_records(load_run(overrides))
    estimate = estimate_run(run)
    again = with_records(load_run(find_overrides(Subject(estimate, run.hardware, run.host, run.efficiency))))
    same = estimate_run(again)
    if run.hardware:
        assert time_run(again, same).stages.equals(time_run(run, estimate).stages)
    assert same.config == estimate.config and same.chosen_stages == estimate.chosen_stages and again.hardware == run.hardware
    assert same.module_numbers == estimate.module_numbers
    assert again.workload.image_width_px == run.workload.image_width_px


def test_a_device_with_a_figure_its_config_has_no_key_for_has_no_command():
    t4 = of.load_hardware("t4").edited("bf16", matrix_flops_per_second=1e12)
    assert find_overrides(Subject(SUBJECTS["page"].estimate, t4)) is None


def test_a_subject_is_one_point_on_a_device_that_computes_in_its_precision():
    with pytest.raises(of.SpecError, match="points; a report is about one"):
        Subject(of.estimate(MODEL, Setting().neighbours))
    with pytest.raises(of.SpecError, match="bf16"):
        Setting().subject(MODEL, of.load_hardware("t4"))


def test_modes_with_the_same_kernels_in_vision_are_one_line():
    assert SUBJECTS["published code"].distinct_in_vision == ["eager", "sdpa", "flash"]
    assert SUBJECTS["mixed"].distinct_in_vision == ["eager", "sdpa", "flash", "mixed"]


def test_the_apps_setting_gives_the_same_page_as_the_command_line(tmp_path, capsys):
    setting = Setting(columns=3, rows=1, source="grid", gpu="l4", attention="eager")
    path = tmp_path / "x.html"
    assert cli.main(["report", "workload.columns=3", "workload.rows=1", "hardware=l4", "attention=eager", "--out", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\n" and list(tmp_path.iterdir()) == [path]
    assert path.read_text(encoding="utf-8") == report_html(setting.subject(MODEL, setting.device), in_child=False)


def test_markdown_shows_the_charts_that_are_written_beside_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", "workload=tiny", "hardware=l4", "--format", "md", "--charts", "svg"]) == 0
    files = capsys.readouterr().out.splitlines()
    charts = [f"report_{name}.svg" for name in all_charts(Setting(mode="tiny").subject(MODEL, L4))]
    assert sorted(files) == sorted(["report.md", *charts]) == sorted(path.name for path in tmp_path.iterdir())
    assert sorted(re.findall(r"\]\((.*\.svg)\)", (tmp_path / "report.md").read_text(encoding="utf-8"))) == sorted(charts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["workload.columns=0"], "columns"),
        (["hardware=t4"], "bf16"),
        (["hardware=nothing"], "nothing"),
        (["--out", "file/below"], "--out: cannot write file/below/report.html"),
    ],
)
def test_what_stops_a_report_is_one_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["report", *arguments]) == 2
    captured = capsys.readouterr()
    assert (
        captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("ocr-flops report: ") and message in captured.err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert cli.main(["report", "--out", str(tmp_path)]) == 2
    assert "choose a folder you can write to" in capsys.readouterr().err
