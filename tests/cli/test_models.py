"""`ocr-flops models` and `compare`."""

import json

import pytest

from ocr_flops import cli
from tests.support.images import encoded

COMPARE = ["compare", "model=deepseek_ocr,tiny_test"]


def test_models_lists_tokens_and_limits(capsys):
    assert cli.main(["models", "--format", "json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["deepseek_ocr"]["image_tokens"] == 903 and "tiles of 640 px" in rows["unlimited_ocr"]["limits"]
    assert "config.json" in rows["glm_ocr"]["source"]
    assert [name for name, row in rows.items() if row["replaced"]] == ["got_ocr2"]
    assert cli.main(["models"]) == 0 and "attention: eager counted in place of sdpa (" in capsys.readouterr().out


@pytest.mark.parametrize(("model", "is_said"), [("got_ocr2", True), ("qwen2_5_vl", False), ("deepseek_ocr", False)])
def test_an_estimate_says_where_a_program_lacks_the_engines_own_kernel(model, is_said, capsys):
    assert cli.main(["estimate", f"model={model}", "workload.image_width_px=900", "workload.image_height_px=900"]) == 0
    assert ("attention: eager counted in place of sdpa (" in capsys.readouterr().out) == is_said


def test_compare_says_what_it_rests_on(capsys):
    assert cli.main([*COMPARE, "hardware=l4", "--price", "1.5", "--chars", "1000", "--crops", "tiny_test=4"]) == 0
    text = capsys.readouterr().out
    assert "batch 1, and the order of models" in text and "attention kernels: " in text
    assert "one page of 1654 x 2339 px with 1000 characters" in text and "NVIDIA L4" in text
    assert "tiny test model reads 4 strips a page" in text and "expected times rest on" in text and "cost/1000 pages" in text
    assert (
        cli.main(["compare", "model=deepseek_ocr", "model=tiny_test", "hardware=l4", "--columns", "expected_page_seconds,batch_size"]) == 0
    )
    text = capsys.readouterr().out
    assert "expected page   batch" in text and "tiny test model" in text and "DeepSeek-OCR" in text
    assert cli.main([*COMPARE, "--price", "1.5"]) == 0 and "an hour" not in capsys.readouterr().out, "no device, no cost"


def test_compare_draws_the_chart_for_a_slide(tmp_path, capsys):
    assert cli.main([*COMPARE, "hardware=l4", "--chart", "svg", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / name) for name in ("cost_by_page_size.svg", "memory_by_output.svg", "compare.txt")
    ]
    drawn = (tmp_path / "cost_by_page_size.svg").read_text()
    assert "DeepSeek-OCR" in drawn and "size of the page in megapixels" in drawn
    assert "tokens of output" in (tmp_path / "memory_by_output.svg").read_text()


def test_compare_over_a_corpus_is_the_plan_of_each_model(capsys):
    """The same text on every page; who cannot read a corpus says why."""
    words = ["compare", "model=glm_ocr,deepseek_ocr,unlimited_ocr", "--corpus", "a4@200:900,1080x1920:100", "hardware=l4", "--price", "0.8"]
    assert cli.main([*words, "--format", "json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    plan = ["corpus", "a4@200:900,1080x1920:100", "model=glm_ocr", "--lengths", "600", "--price", "l4=0.8", "--format", "json"]
    assert cli.main(plan) == 0
    planned = json.loads(capsys.readouterr().out)
    assert rows["glm_ocr"]["total_flops"] == planned["totals"]["total_flops"] and rows["glm_ocr"]["pages"] == 1000
    assert rows["glm_ocr"]["cost"] == pytest.approx(planned["plans"][0]["cost"])
    assert rows["deepseek_ocr"]["gpu_hours"] < rows["glm_ocr"]["gpu_hours"] and "window" in rows["unlimited_ocr"]["reason"]
    assert cli.main(words) == 0
    assert "all pages of a4@200:900,1080x1920:100 with 3000 characters each" in " ".join(capsys.readouterr().out.split())


def test_compare_says_what_of_a_corpus_is_not_read(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scans = tmp_path / "scans"
    scans.mkdir()
    for name, content in {
        "a.png": encoded("PNG", (1654, 2339)),
        "b.png": encoded("PNG", (2, 900)),
        "c.jpg": b"no image",
        "a.txt": b"x",
    }.items():
        (scans / name).write_bytes(content)
    words = ["compare", "--corpus", str(scans), "hardware=l4"]
    assert cli.main([*words, "model=glm_ocr,deepseek_ocr"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Left out 1: 1 x neither an image nor a PDF" in text and "Texts beside the images are not read" in text
    assert "Left out for GLM-OCR: 1 page, as a page more than 200 times as long as wide" in text
    assert cli.main([*words, "model=glm_ocr", "--format", "csv"]) == 0 and "Left out 1: 1 x neither" in capsys.readouterr().err
    assert cli.main([*words, "model=paddleocr_vl"]) == 0  # where no model has a number
    assert "No number for PaddleOCR-VL: model: 'paddleocr_vl' reads layout blocks, not pages" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "model=deepseek_ocr,gpt"], "model: 'gpt' is not one of"),
        ([*COMPARE, "--crops", "deepseek_ocr=0"], "--crops: 'deepseek_ocr=0' is not MODEL=N with a whole number above 0"),
        ([*COMPARE, "--crops", "tiny_test"], "--crops: 'tiny_test' is not MODEL=N"),
        ([*COMPARE, "--chars-per-token", "glm_ocr=4"], "--chars-per-token: 'glm_ocr' is not one of deepseek_ocr, tiny_test"),
        ([*COMPARE, "--corpus", "a4@200:9"], "--corpus: needs hardware="),
        ([*COMPARE, "--corpus", "a4:9", "hardware=l4", "workload.batch_size=4"], "workload.batch_size: has no effect; a corpus has"),
        ([*COMPARE, "--corpus", "PAGES", "hardware=l4"], "pages: the column output_tokens has no effect"),
        ([*COMPARE, "workload.output_tokens=9"], "workload.output_tokens: has no effect; every model writes the same text"),
        ([*COMPARE, "workload=tiny"], "workload: has no effect; a page has its size"),
        ([*COMPARE, "--batch", "best"], "--batch: best needs hardware="),
        ([*COMPARE, "--chart", "svg"], "--chart: needs --out DIR, and hardware= for times"),
    ],
)
def test_compare_refuses_by_name(words, message, capsys, tmp_path):
    pages = tmp_path / "pages.csv"
    pages.write_text("width,height,output_tokens\n1654,2339,9\n")
    assert cli.main([str(pages) if word == "PAGES" else word for word in words]) == 2
    assert message in capsys.readouterr().err
