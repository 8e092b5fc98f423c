"""`ocr-flops measure`: a record, what it says, and how it fails."""

import csv
import io
import json
import os
import tempfile
from pathlib import Path

import pytest

from ocr_flops import cli, files
from ocr_flops.evidence import records
from ocr_flops.measure import client
from tests.support import timed
from tests.support.timed import AtOnce, Inside

ARGUMENTS = ["measure", "model=tiny_test", "workload.global_px=64", "workload.columns=1", "workload.output_tokens=2", "--runs", "2"]
ARGUMENTS += ["--warmup", "0", "--device", "cpu"]


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "Worker", AtOnce)

    def ran(*arguments):
        code = cli.main([*ARGUMENTS, "--records", str(tmp_path / "records"), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return ran


def kept(tmp_path):
    return records.records_frame(tmp_path / "records", shipped=tmp_path / "none")[0]


def test_json_is_the_record(run, tmp_path):
    code, text, _ = run("--format", "json")
    data = json.loads(text)
    path = data.pop("path")
    assert code == 0 and data == json.loads(Path(path).read_text())
    assert kept(tmp_path)["record_id"].unique().to_list() == [data["record_id"]]


def test_csv_is_the_frame(run, tmp_path):
    code, text, _ = run("--format", "csv", "--passes", "none")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert code == 0 and [row["stage"] for row in rows] == ["vision", "prefill", "decode"]
    assert list(rows[0]) == kept(tmp_path).columns and rows[0]["runs"] == "2"


def test_the_table_says_what_ran(run, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "Worker", Inside)
    code, text, _ = run("attention=sdpa")
    assert code == 0
    for words in ("tiny_test", "sam sdpa", "grouped_mm", "2 runs after 0", "peaks are not known", "not counted", "sam.attention_global"):
        assert words in text
    assert "mfu" not in text and str(tmp_path / "records") in text


def test_what_could_not_be_observed_is_told(run, monkeypatch):
    monkeypatch.setitem(timed.RAN, "not_observed", {"flops": "out of memory (Choose less.)"})
    code, text, _ = run()
    assert code == 0 and "flops could not be observed: out of memory (Choose less.)" in text


def test_out_writes_a_file(run, tmp_path):
    code, text, _ = run("--format", "json", "--out", str(tmp_path / "out"), "--passes", "none")
    assert code == 0 and json.loads((tmp_path / "out" / "measure.json").read_text())["state"] == "done"


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_failure_is_recorded_and_exits_1(run, tmp_path, monkeypatch, form):
    monkeypatch.setattr(client, "Worker", Inside)
    code, text, told = run("attention=flash", "--format", form)
    assert code == 1 and told.startswith("ocr-flops measure: kernel missing: attention.sam") and "record: " in told
    assert kept(tmp_path)["state"].to_list() == ["failed"] * 3
    assert (json.loads(text)["state"] == "failed") if form == "json" else not text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "0"], "runs: 0 is not a whole number of at least 1"),
        (["--passes", "flops,magic"], "--passes: 'magic' is not one of modules, memory, flops, traffic"),
        (["--timeout", "0"], "--timeout: 0.0 is not a number of seconds above 0"),
        (["--python", "/nonexistent/python"], "--python: '/nonexistent/python' is not there"),
        (["cache=static"], "cache: 'static' cannot be measured"),
        (["attention=fast"], "attention: 'fast' is not one of"),
        (["engine=remote_code", "snapshot=/tmp"], "trust_remote_code: it is not true, so nothing was run"),
    ],
)
def test_what_cannot_be_asked_for_exits_2_and_leaves_no_record(run, tmp_path, arguments, message):
    code, text, told = run(*arguments)
    assert (code, text) == (2, "") and told.startswith(f"ocr-flops measure: {message}") and told.count("\n") == 1
    assert kept(tmp_path).is_empty()


def test_ctrl_c_cancels(run, tmp_path, monkeypatch):
    class Interrupted(AtOnce):
        def __iter__(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(client, "Worker", Interrupted)
    assert run()[0] == 130 and kept(tmp_path).is_empty()


def test_a_folder_that_cannot_be_written_is_found_before_measuring(run, tmp_path, monkeypatch):
    (tmp_path / "records").write_text("in the way")
    monkeypatch.setattr(client, "Worker", None)
    code, _, told = run()
    assert code == 2 and "is not a folder; name one, or move that file away" in told


def test_a_disk_that_fills_up_meanwhile_loses_nothing(run, tmp_path, monkeypatch):
    """The record that fits nowhere is printed whole."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(records, "check_folder", lambda where: where)

    def full(descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(files.os, "fsync", full)
    code, text, told = run("--passes", "none")
    assert code == 1 and json.loads(text)["state"] == "done" and "No space left on device; free some space" in told


def test_the_hosts_lane_is_a_record_of_its_own(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "Worker", Inside)
    assert cli.main(["measure", "model=tiny_test", "--lane", "host", "--runs", "2", "--records", str(tmp_path / "records")]) == 0
    (path,) = (tmp_path / "records" / "host_lane").iterdir()
    text, data = capsys.readouterr().out, json.loads(path.read_text())
    assert data["kind"] == "host_lane" and "sam.attention_global" in text and str(path) in text
    assert kept(tmp_path).height == 0
