"""`ocr-flops calibrate`."""

import csv
import io
import json
import re

import pytest

from ocr_flops import cli
from ocr_flops.evidence import records
from ocr_flops.evidence.calibration import calibrate
from tests.support import synthetic

POINTS = synthetic.workloads(synthetic.PAGES[::3], (1, 8), ((10, 16),))


@pytest.fixture(scope="module")
def frame(model):
    return synthetic.frame(POINTS, model, noise=0.03)


@pytest.fixture
def run(capsys, monkeypatch, frame):
    def ran(*arguments, recorded=frame, problems=()):
        monkeypatch.setattr(records, "records_frame", lambda where: (recorded, list(problems)))
        code = cli.main(["calibrate", "workload.columns=2", "workload.rows=2", "workload.output_tokens=16", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return ran


def test_json_has_everything(run, model, frame):
    code, text, _ = run("--format", "json", "attention=sdpa")
    data, found = json.loads(text), calibrate(frame, model)
    assert code == 0 and (data["device"], data["hardware"], data["records"]) == (found.device, "h200", 16)
    matrix, vector, _ = data["ceilings"]
    assert matrix["efficiency"]["low"] < matrix["efficiency"]["value"] == found.efficiencies[0].efficiency.value
    assert vector["efficiency"] is None and vector["reason"] == "binds in no record"
    assert len(data["held_out"]) == frame.height and {row["figure"] for row in data["errors"]} == {"vision", "prefill", "decode", "ttft"}
    point = data["point"]
    assert point["bound_ttft_seconds"] < point["ttft_seconds"]["low"] < point["ttft_seconds"]["value"] < point["ttft_seconds"]["high"]
    assert data["memory"]["bytes"] == synthetic.WORKSPACE_BYTES and point["allocated_bytes"]["value"] > 6e9


def test_csv_is_the_held_out_rows(run, frame):
    code, text, _ = run("--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert code == 0 and len(rows) == frame.height and float(rows[0]["ratio"]) > 0


def test_the_table_says_what_is_reached_and_how_far_off(run):
    code, text, _ = run("attention=sdpa", "hardware=h200")
    assert code == 0
    for words in (
        "NVIDIA H200",
        "16 records of 8 workloads",
        "not known: it binds in no record",
        "cross-validation",
        "the 15 furthest off, of 48",
    ):
        assert words in text
    assert re.search(r"matrix\s+\d\d% \(\d\d% to \d\d%\)", text) and re.search(r"TTFT [\d.]+ ms \([\d.]+ ms to [\d.]+ ms\); bound", text)
    assert "memory allocated" in text and "launches add" in text


def test_what_no_record_shows_is_noted(run):
    _, text, _ = run("attention=flash")
    assert "note: no record ran attention flash, only eager, sdpa" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hardware=l4"], "No record of NVIDIA L4 (24 GB) with deepseek_ocr, engine transformers, bf16"),
        (["--device", "abacus"], "No record of abacus with deepseek_ocr"),
        (["dtype=fp16"], "No record of NVIDIA H200 SXM (141 GB) with deepseek_ocr, engine transformers, fp16"),
        (["hardware=h200", "hardware.memory_bytes=1e9"], "NVIDIA H200 SXM (141 GB) (changed: memory_bytes): nothing was measured"),
    ],
)
def test_without_a_calibration_it_exits_1_with_the_reason(run, arguments, message):
    code, text, told = run(*arguments)
    assert (code, text) == (1, "") and told.startswith(f"ocr-flops calibrate: {message}")


def test_an_empty_folder_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(records.store, "shipped_folder", lambda: tmp_path / "none")
    assert cli.main(["calibrate", "--records", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("ocr-flops calibrate: There are no records yet: `ocr-flops measure` makes records")


def test_files_that_cannot_be_read_are_told(run, tmp_path):
    code, text, told = run("--format", "json", problems=[records.Problem(tmp_path / "a.json", "damaged: not JSON")])
    assert code == 0 and json.loads(text) and "a.json: damaged: not JSON" in told


def test_a_wrong_override_exits_2(run):
    assert run("attention=fast")[0] == 2
