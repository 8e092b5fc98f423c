"""A sweep's folder: whole or not there, gone on with after any interruption, never half replaced; further formats need no computing."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

import ocr_flops as of
from ocr_flops import cli, files
from ocr_flops.reports.sweep_writers import write_sweep
from ocr_flops.studies.sweeps import plan, runner
from ocr_flops.studies.sweeps.folder import WorkFolder, read_manifest
from ocr_flops.studies.sweeps.plan import load_sweep
from tests.support.sweep_results import read_table

SMALL = ["workload.columns=1:5", "workload.rows=1:4", "attention=[eager,flash]", "workload.output_tokens=7"]


@pytest.fixture(scope="module")
def small():
    return load_sweep(SMALL)


@pytest.fixture(scope="module")
def other():
    return load_sweep([*SMALL, "dtype=fp16"])


@pytest.fixture
def parts_of_seven(monkeypatch):
    """40 points in 6 parts."""
    monkeypatch.setattr(runner, "PART_POINTS", 7)


@pytest.fixture
def stopping(monkeypatch):
    """Stops a function of a module with Ctrl-C when it is called for the given time."""

    def stop(where, name, at=0):
        real, calls = getattr(where, name), iter(range(10**6))

        def call(*arguments, **options):
            if next(calls) == at:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        monkeypatch.setattr(where, name, call)
        return lambda: monkeypatch.setattr(where, name, real)

    return stop


def interrupt(sweep, out, stopping, where=runner, name="_write_part", at=3, **options):
    again = stopping(where, name, at)
    with pytest.raises(KeyboardInterrupt):
        write_sweep(sweep, out, **options)
    again()


def heard(sweep, out, *arguments, **options):
    lines = []
    write_sweep(sweep, out, *arguments, tell=lines.append, **options)
    return lines


def entries(path):
    return sorted(entry.name for entry in path.iterdir())


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_manifest(tmp_path, parts_of_seven):
    out = tmp_path / "run"
    command = ["sweep", *SMALL, "--out", str(out), "--format", "parquet,csv"]
    assert cli.main(command) == 0
    manifest = read_manifest(out)
    assert manifest["command"] == ["ocr-flops", *command]
    counts = {"points": 40, "rows": 120, "parts": 6, "parts_kept": 0, "formats": ["parquet", "csv"], "schema": 1}
    assert manifest.items() >= counts.items()
    assert manifest["started"] < manifest["finished"] and manifest["seconds"] > 0
    assert manifest["versions"]["ocr_flops"] == of.__version__ and {"polars", "numpy", "python"} <= set(manifest["versions"])
    assert manifest["identity"]["config"]["model"]["name"] == "deepseek_ocr"
    there = contents(out)
    del there["manifest.json"]
    assert len(there) == 14
    listed = {one["path"]: (one["bytes"], one["sha256"]) for one in manifest["files"]}
    assert listed == {path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in there.items()}


def test_skipped_files_are_named_and_recorded(tmp_path, capsys):
    from PIL import Image

    Image.new("RGB", (900, 900)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    assert cli.main(["sweep", "sweep=images", f"sweep.images={tmp_path}", "--out", str(tmp_path / "run")]) == 0
    assert str(tmp_path / "b.png") in capsys.readouterr().err
    [skipped] = read_manifest(tmp_path / "run")["skipped"]
    assert skipped["path"] == str(tmp_path / "b.png") and skipped["reason"]
    assert read_table(tmp_path / "run").collect()["image"].unique().to_list() == [str(tmp_path / "a.png")]


@pytest.mark.parametrize("stop_after", [0, 1, 3, 5])
def test_an_interrupted_sweep_goes_on(tmp_path, stopping, small, parts_of_seven, stop_after):
    out = tmp_path / "run"
    interrupt(small, out, stopping, at=stop_after)
    assert not out.exists()
    stamps = {path.name: path.stat().st_mtime_ns for path in WorkFolder(out).parts.iterdir()}
    assert len(stamps) == stop_after
    lines = heard(small, out)
    assert lines == ([f"going on from {stop_after} of 6 parts that are there"] if stop_after else [])
    assert read_table(out).collect().equals(small.stages_frame())
    assert {name: (out / "stages" / name).stat().st_mtime_ns for name in stamps} == stamps
    assert read_manifest(out)["parts_kept"] == stop_after
    assert entries(tmp_path) == ["run"]


def test_a_format_half_written_is_written_again(tmp_path, stopping, small, parts_of_seven):
    out = tmp_path / "run"
    write_sweep(small, tmp_path / "whole", ["json", "csv"])
    interrupt(small, out, stopping, runner.folder, "write_manifest", at=0, formats=["json", "csv"])
    (WorkFolder(out).files / "stages.csv").write_text("half")
    (WorkFolder(out).files / "charts").mkdir()
    write_sweep(small, out, ["json", "csv"])
    assert entries(out) == ["manifest.json", "points.csv", "points.json", "stages.csv", "stages.json"]
    assert (out / "stages.csv").read_bytes() == (tmp_path / "whole" / "stages.csv").read_bytes()


def test_an_interrupted_sweep_is_not_mixed_with_another(tmp_path, stopping, small, other, parts_of_seven):
    out = tmp_path / "run"
    interrupt(small, out, stopping)
    with pytest.raises(of.SpecError, match=r"dtype bf16 there, fp16 here.*--overwrite"):
        write_sweep(other, out)
    write_sweep(other, out, overwrite=True)
    assert read_table(out).collect().equals(other.stages_frame())


@pytest.mark.parametrize("note", ['{"schema": 2, "identity": {}}', "[]", '{"identity": 3}'])
def test_notes_of_another_schema_are_refused_by_name(tmp_path, small, stopping, parts_of_seven, note):
    out = tmp_path / "run"
    interrupt(small, out, stopping)
    (WorkFolder(out).path / "run.json").write_text(note)
    with pytest.raises(of.SpecError, match=r"run.json is not of schema 1; .* discard it with --overwrite"):
        write_sweep(small, out)
    write_sweep(small, out, overwrite=True)
    (out / "manifest.json").write_text((out / "manifest.json").read_text().replace('"schema": 1', '"schema": 9', 1))
    with pytest.raises(of.SpecError, match=r"manifest.json is not of schema 1; choose another folder"):
        write_sweep(small, out)


def test_a_finished_sweep_stays(tmp_path, small, other):
    out = tmp_path / "run"
    write_sweep(small, out, ["csv"])
    stamp = (out / "manifest.json").stat().st_mtime_ns
    [line] = heard(small, out, ["csv"])
    assert "finished already" in line
    with pytest.raises(of.SpecError, match=r"dtype bf16 there, fp16 here.*--overwrite"):
        write_sweep(other, out, ["csv"])
    assert (out / "manifest.json").stat().st_mtime_ns == stamp and entries(tmp_path) == ["run"]


def test_overwriting_removes_only_what_the_manifest_lists(tmp_path, small, other, parts_of_seven):
    out = tmp_path / "run"
    write_sweep(small, out, ["parquet", "csv"])
    (out / "notes.txt").write_text("mine")
    (out / "stages" / "mine.txt").write_text("mine")
    write_sweep(other, out, ["json"], overwrite=True)
    assert entries(out) == ["manifest.json", "notes.txt", "points.json", "stages", "stages.json"] and entries(out / "stages") == [
        "mine.txt"
    ]
    shutil.rmtree(out / "stages")
    write_sweep(small, out, ["csv"], overwrite=True)
    assert entries(out) == ["manifest.json", "notes.txt", "points.csv", "stages.csv"] and entries(tmp_path) == ["run"]


def test_a_manifest_that_lists_files_elsewhere_removes_none(tmp_path, small):
    out, outside = tmp_path / "run", tmp_path / "outside.txt"
    write_sweep(small, out, ["csv"])
    outside.write_text("mine")
    manifest = read_manifest(out)
    manifest["files"] += [{"path": path, "bytes": 4, "sha256": ""} for path in ("../outside.txt", str(outside))]
    (out / "manifest.json").write_text(json.dumps(manifest))
    write_sweep(small, out, ["csv"], overwrite=True)
    assert outside.exists()


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"8")], ids=["missing", "changed"])
def test_files_of_a_finished_sweep_that_are_missing_or_changed_are_named(tmp_path, small, change):
    out = tmp_path / "run"
    write_sweep(small, out, ["csv", "json"])
    before = contents(out)
    change(out / "stages.csv")
    with pytest.raises(of.SpecError, match=r"changed: stages\.csv; --overwrite"):
        write_sweep(small, out, ["csv"])
    write_sweep(small, out, ["csv", "json"], overwrite=True)
    assert contents(out)["stages.csv"] == before["stages.csv"]


@pytest.mark.parametrize("part_points", [7, 100])
def test_further_formats_of_a_finished_sweep(tmp_path, monkeypatch, small, part_points):
    monkeypatch.setattr(runner, "PART_POINTS", part_points)
    whole, out = tmp_path / "whole", tmp_path / "run"
    write_sweep(small, whole, ["parquet", "csv", "json"])
    write_sweep(small, out, ["parquet"])
    with monkeypatch.context() as patch:
        patch.setattr(plan.Sweep, "stages_frame", None)  # no point is computed again
        manifest = write_sweep(small, out, ["json", "csv"])
    assert manifest["formats"] == ["parquet", "json", "csv"]
    assert manifest["files"] == read_manifest(whole)["files"]
    one, several = contents(whole), contents(out)
    assert one.pop("manifest.json") and several.pop("manifest.json") and one == several
    write_sweep(small, tmp_path / "text", ["csv"])
    write_sweep(small, tmp_path / "text", ["csv", "parquet"])  # without Parquet files points are computed again
    assert read_table(tmp_path / "text").collect().equals(small.stages_frame())
    assert entries(tmp_path) == ["run", "text", "whole"]


def test_a_further_format_whose_process_died_loses_none(tmp_path, monkeypatch, small):
    out = tmp_path / "run"
    write_sweep(small, out, ["csv"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(WorkFolder, "publish", lambda work: (_ for _ in ()).throw(KeyboardInterrupt))
        write_sweep(small, out, ["json"])
    assert entries(out) == [".partial", "manifest.json", "points.csv", "stages.csv"]
    write_sweep(small, out, ["parquet"])
    assert entries(out) == ["manifest.json", *(f"{table}.{kind}" for table in ("points", "stages") for kind in ("csv", "json", "parquet"))]


def test_a_folder_of_something_else_is_left_alone(tmp_path, small):
    (tmp_path / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(of.SpecError, match="something else than a sweep"):
            write_sweep(small, tmp_path, overwrite=overwrite)
    assert entries(tmp_path) == ["thesis.txt"]


def test_a_folder_that_is_there_is_filled(tmp_path, monkeypatch, small, stopping):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    place = (tmp_path / "empty").stat().st_ino
    interrupt(small, tmp_path / "link", stopping, at=0)
    monkeypatch.chdir(tmp_path / "empty")
    write_sweep(small, ".", ["csv"])
    assert entries(tmp_path / "empty") == ["manifest.json", "points.csv", "stages.csv"] and (tmp_path / "empty").stat().st_ino == place
    assert (tmp_path / "link").is_symlink() and entries(tmp_path) == ["empty", "link"]


@pytest.mark.parametrize("step", range(9))
def test_death_while_one_sweep_takes_anothers_place(tmp_path, monkeypatch, small, other, step):
    """The folder is never taken for a finished sweep in between, and the same command ends with the new one."""
    out, calls = tmp_path / "run", iter(range(100))
    write_sweep(other, out, ["parquet", "csv", "json"])
    before = contents(out)

    def dying(real):
        def call(*arguments, **options):
            if next(calls) == step:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "publish", dying(WorkFolder.publish))
        for name in ("unlink", "replace"):
            patch.setattr(Path, name, dying(getattr(Path, name)))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        with contextlib.suppress(KeyboardInterrupt):
            write_sweep(small, out, ["parquet", "sqlite"], overwrite=True)
    manifest = (out / "manifest.json").read_bytes() if (out / "manifest.json").exists() else None
    if manifest == before["manifest.json"] and contents(out).items() < before.items():
        with pytest.raises(of.SpecError):
            write_sweep(other, out, ["csv"])
    write_sweep(small, out, ["parquet", "sqlite"], overwrite=True)
    assert read_table(out).collect().equals(small.stages_frame())
    assert entries(out) == ["manifest.json", "points.parquet", "stages.parquet", "sweep.sqlite"] and entries(tmp_path) == ["run"]


def test_two_at_once(tmp_path, small):
    out = tmp_path / "run"
    with WorkFolder(out).locked(), pytest.raises(of.SpecError, match="another sweep is writing"):
        write_sweep(small, out)
    write_sweep(small, out, ["csv"])


def test_too_little_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch, small, parts_of_seven):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5_000, 5_000))
    with pytest.raises(of.SpecError, match=r"^--out: .*run.*GB free .* 120 rows need about .* GB"):
        write_sweep(small, tmp_path / "run")
    assert entries(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 150_000))
    with pytest.raises(of.SpecError, match="need about"):
        write_sweep(small, tmp_path / "run", ["json"])  # text takes more than Parquet
    write_sweep(small, tmp_path / "run", ["parquet"])


def test_a_disk_that_fills_up_is_one_line_and_loses_nothing(tmp_path, monkeypatch, capsys, parts_of_seven):
    out, real, calls = tmp_path / "run", os.fsync, iter(range(1000))

    def full(handle):
        if next(calls) >= 5:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        assert cli.main(["sweep", *SMALL, "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device; free some space" in error and str(tmp_path) in error
    assert not out.exists()
    assert cli.main(["sweep", *SMALL, "--out", str(out)]) == 0
    assert read_manifest(out)["parts_kept"] == 4


@pytest.mark.parametrize("where", ["file/run", "file"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys, where):
    (tmp_path / "file").write_text("")
    assert cli.main(["sweep", "sweep=vendor", "--out", str(tmp_path / where)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("ocr-flops sweep: --out: ") and str(tmp_path / "file") in error


KILLED = """
import sys
from ocr_flops import cli
from ocr_flops.reports import sweep_writers
from ocr_flops.studies.sweeps import runner
import polars, sqlite3
runner.PART_POINTS = 1000
print("begun", flush=True)
sys.exit(cli.main(sys.argv[1:]))
"""
LONGER = ["workload.columns=1:20", "workload.rows=1:20", "workload.prompt_tokens=1:60", "attention=[eager,flash]"]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.verification)])
def test_kill_9_at_random_moments(tmp_path, monkeypatch, kills):
    monkeypatch.setattr(runner, "PART_POINTS", 1000)
    chance, whole = random.Random(kills), load_sweep(LONGER).stages_frame()
    done, number = 0, 0
    while done < kills:
        out = tmp_path / f"run{number}"
        formats = "parquet,sqlite" if number % 2 else "parquet"
        command = [sys.executable, "-c", KILLED, "sweep", *LONGER, "--out", str(out), "--format", formats]
        parts = WorkFolder(out).parts
        before = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*.parquet")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.9))
            process.kill()
        done += process.returncode == -9
        where = out / "stages" if out.exists() else parts
        after = {path.name: path.stat().st_mtime_ns for path in where.glob("part-*.parquet")}
        assert before.items() <= after.items()  # what was finished was neither lost nor computed again
        if out.exists() or done == kills:
            subprocess.run(command, check=True, capture_output=True)
            assert read_table(out).collect().equals(whole)
            listed = {one["path"] for one in read_manifest(out)["files"]}
            assert listed == {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} - {"manifest.json"}
            shutil.rmtree(out)
            assert entries(tmp_path) == []
            number += 1
