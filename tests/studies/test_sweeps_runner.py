"""A run's folder: whole or not there, the same rows in every format, gone on with after any interruption, and never half replaced."""

import csv
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops import cli
from ocr_flops.studies import sweeps
from ocr_flops.studies.sweeps import folder, runner
from ocr_flops.studies.sweeps import results as outputs

SMALL = ["workload.columns=1:5", "workload.rows=1:4", "attention=[eager,flash]", "workload.output_tokens=7"]
ALL = ("parquet", "csv", "json", "sqlite")


@pytest.fixture(scope="module")
def small():
    return sweeps.load_sweep(SMALL)


@pytest.fixture
def parts_of_seven(monkeypatch):
    """40 points in 6 parts."""
    monkeypatch.setattr(runner, "PART_POINTS", 7)


def told(sweep, out, *arguments, **options):
    lines = []
    sweeps.run(sweep, out, *arguments, tell=lines.append, **options)
    return lines


def entries(path):
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize("part_points", [7, 100])
def test_every_format_holds_the_same_rows(tmp_path, monkeypatch, small, part_points):
    monkeypatch.setattr(runner, "PART_POINTS", part_points)
    manifest = sweeps.run(small, tmp_path / "run", ALL)
    frame = small.frame()
    assert entries(tmp_path) == ["run"]
    parquet = ["stages.parquet"] if part_points == 100 else ["stages"]
    assert entries(tmp_path / "run") == sorted(["manifest.json", "stages.csv", "stages.json", "sweep.sqlite", *parquet])
    assert sweeps.read(tmp_path / "run").collect().equals(frame)
    rows = json.loads((tmp_path / "run" / "stages.json").read_text())
    assert rows == frame.to_dicts()
    with (tmp_path / "run" / "stages.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [{name: int(row[name]) for name in ("point", "io_bytes", "tensor_flops")} for row in table] == frame.select(
        "point", "io_bytes", "tensor_flops"
    ).to_dicts()
    assert len(table) == frame.height == manifest["rows"]
    database = sqlite3.connect(tmp_path / "run" / "sweep.sqlite")
    assert database.execute("SELECT * FROM stages ORDER BY rowid").fetchall() == frame.rows()
    info = database.execute("PRAGMA table_info(stages)").fetchall()
    assert [row[1] for row in info if row[5]] == ["point", "stage"]
    assert {row[1]: row[2] for row in info}.items() >= {"io_bytes": "INTEGER", "stage": "TEXT", "arithmetic_intensity": "REAL"}.items()
    assert len(database.execute("PRAGMA index_list(stages)").fetchall()) >= 5
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("INSERT INTO stages SELECT * FROM stages LIMIT 1")
    database.close()


def test_manifest(tmp_path, parts_of_seven):
    out = tmp_path / "run"
    command = ["sweep", *SMALL, "--out", str(out), "--format", "parquet,csv"]
    assert cli.main(command) == 0
    manifest = sweeps.read_manifest(out)
    assert manifest["command"] == ["ocr-flops", *command]
    assert (manifest["points"], manifest["rows"], manifest["parts"], manifest["parts_kept"], manifest["formats"]) == (
        40,
        120,
        6,
        0,
        ["parquet", "csv"],
    )
    assert manifest["started"] < manifest["finished"] and manifest["seconds"] > 0
    assert manifest["versions"]["ocr_flops"] == of.__version__ and {"polars", "numpy", "python"} <= set(manifest["versions"])
    assert manifest["identity"]["config"]["model"]["name"] == "deepseek_ocr"
    listed = {file["path"]: file for file in manifest["files"]}
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} - {"manifest.json"}
    assert set(listed) == there and len(there) == 7
    for path, file in listed.items():
        content = (out / path).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_skipped_files_are_told_and_recorded(tmp_path, capsys):
    from PIL import Image

    Image.new("RGB", (900, 900)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing")
    assert cli.main(["sweep", "sweep=images", f"sweep.images={tmp_path}", "--out", str(tmp_path / "run")]) == 0
    assert f"skipped {tmp_path / 'b.png'}: " in capsys.readouterr().err
    [skipped] = sweeps.read_manifest(tmp_path / "run")["skipped"]
    assert skipped["path"] == str(tmp_path / "b.png") and skipped["reason"]
    assert sweeps.read(tmp_path / "run").collect()["image"].unique().to_list() == [str(tmp_path / "a.png")]


@pytest.mark.parametrize("stop_after", [0, 1, 3, 5])
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, small, parts_of_seven, stop_after):
    out, kept = tmp_path / "run", {}
    real = runner._write_part

    def write(path, frame):
        if len(kept) == stop_after:
            raise KeyboardInterrupt
        kept[path.name] = real(path, frame)
        return kept[path.name]

    monkeypatch.setattr(runner, "_write_part", write)
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(small, out)
    assert not out.exists()
    stamps = {name: (folder.partial_of(out) / "stages" / name).stat().st_mtime_ns for name in kept}
    monkeypatch.setattr(runner, "_write_part", real)
    lines = told(small, out)
    assert lines == ([f"going on from {stop_after} of 6 parts that are there"] if stop_after else [])
    assert sweeps.read(out).collect().equals(small.frame())
    assert {name: (out / "stages" / name).stat().st_mtime_ns for name in kept} == stamps
    assert sweeps.read_manifest(out)["parts_kept"] == stop_after
    assert entries(tmp_path) == ["run"]


def test_half_a_part_is_computed_again(tmp_path, monkeypatch, small, parts_of_seven):
    monkeypatch.setitem(outputs.WRITERS, "csv", lambda results: (_ for _ in ()).throw(KeyboardInterrupt))
    out, parts = tmp_path / "run", folder.partial_of(tmp_path / "run") / "stages"
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(small, out, ["csv"])
    content = (parts / "part-000002.parquet").read_bytes()
    (parts / "part-000002.parquet").write_bytes(content[: len(content) // 2])
    (parts / "part-000003.parquet.99.part").write_bytes(content)
    pl.read_parquet(parts / "part-000004.parquet").head(3).write_parquet(parts / "part-000004.parquet")
    assert told(small, out, ["parquet"]) == ["going on from 4 of 6 parts that are there"]
    assert sweeps.read(out).collect().equals(small.frame())
    assert entries(out / "stages") == [f"part-{number:06d}.parquet" for number in range(6)]


def test_an_interrupted_run_of_something_else_is_not_mixed_in(tmp_path, monkeypatch, small, parts_of_seven):
    out, other = tmp_path / "run", sweeps.load_sweep([*SMALL, "dtype=fp16"])
    monkeypatch.setitem(outputs.WRITERS, "csv", lambda results: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        sweeps.run(small, out, ["csv"])
    with pytest.raises(of.SpecError, match=r"interrupted sweep is in .*dtype bf16 there, fp16 here.*--overwrite"):
        sweeps.run(other, out)
    sweeps.run(other, out, overwrite=True)
    assert sweeps.read(out).collect().equals(other.frame())


def test_a_finished_run_stays(tmp_path, small):
    out, other = tmp_path / "run", sweeps.load_sweep([*SMALL, "dtype=fp16"])
    sweeps.run(small, out, ["csv"])
    stamp = (out / "manifest.json").stat().st_mtime_ns
    assert told(small, out, ["csv"]) == [f"{out}: finished already, with these settings; --overwrite computes it again"]
    with pytest.raises(of.SpecError, match=r"holds a finished sweep \(dtype bf16 there, fp16 here\).*--overwrite"):
        sweeps.run(other, out, ["csv"])
    with pytest.raises(of.SpecError, match="formats csv there, json here"):
        sweeps.run(small, out, ["json"])
    assert (out / "manifest.json").stat().st_mtime_ns == stamp and entries(tmp_path) == ["run"]
    sweeps.run(other, out, ["json"], overwrite=True)
    assert entries(out) == ["manifest.json", "stages.json"] and entries(tmp_path) == ["run"]


def test_a_folder_of_something_else_is_left_alone(tmp_path, small):
    (tmp_path / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(of.SpecError, match="holds something else than a sweep"):
            sweeps.run(small, tmp_path, overwrite=overwrite)
    assert entries(tmp_path) == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    sweeps.run(small, tmp_path / "empty", ["csv"])
    assert (tmp_path / "empty" / "manifest.json").exists()


@pytest.mark.parametrize("step", range(10))
def test_death_while_one_run_takes_anothers_place(tmp_path, monkeypatch, small, step):
    """At every step there is a whole folder, old or new, and the same command ends with the new one."""
    out, other = tmp_path / "run", sweeps.load_sweep([*SMALL, "dtype=fp16"])
    sweeps.run(other, out, ["parquet"])
    rmtree = shutil.rmtree
    count = iter(range(100))

    def dying(real):
        def call(*arguments, **options):
            assert real is not rmtree or arguments[0] != out  # a folder goes only after its name
            if next(count) == step:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_tidy", dying(runner._tidy))
        patch.setattr(folder, "sync", dying(folder.sync))
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        with pytest.raises(KeyboardInterrupt):
            sweeps.run(small, out, ["parquet"], overwrite=True)
    assert not out.exists() or (out / "manifest.json").exists()
    wholes = [path for path in (out, folder.partial_of(out), folder.old_of(out)) if (path / "manifest.json").exists()]
    assert wholes
    sweeps.run(small, out, ["parquet"], overwrite=True)
    assert sweeps.read(out).collect().equals(small.frame())
    assert entries(tmp_path) == ["run"]


def test_two_at_once(tmp_path, small):
    out = tmp_path / "run"
    with folder.locked(folder.partial_of(out)), pytest.raises(of.SpecError, match="another sweep is writing"):
        sweeps.run(small, out)
    sweeps.run(small, out, ["csv"])


def test_too_little_disk_is_told_before_anything_is_written(tmp_path, monkeypatch, small, parts_of_seven):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 5_000, 5_000))
    with pytest.raises(of.SpecError, match=r"^--out: .*run.*free and this sweep's 120 rows need about .* GB; free some space"):
        sweeps.run(small, tmp_path / "run")
    assert entries(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 120_000))
    with pytest.raises(of.SpecError, match="need about"):
        sweeps.run(small, tmp_path / "run", ["json"])  # text takes more than Parquet
    sweeps.run(small, tmp_path / "run", ["parquet"])


def test_a_disk_that_fills_up_is_one_line_and_loses_nothing(tmp_path, monkeypatch, capsys, parts_of_seven):
    out, real, calls = tmp_path / "run", os.fsync, iter(range(1000))

    def full(handle):
        if next(calls) >= 8:
            raise OSError(28, "No space left on device")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert cli.main(["sweep", *SMALL, "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        error.startswith("ocr-flops sweep: --out: cannot write ")
        and "No space left on device; free some space" in error
        and str(tmp_path) in error
    )
    assert not out.exists()
    assert cli.main(["sweep", *SMALL, "--out", str(out)]) == 0
    assert "going on from" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["file/run", "file"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys, where):
    (tmp_path / "file").write_text("")
    assert cli.main(["sweep", "sweep=vendor", "--out", str(tmp_path / where)]) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("ocr-flops sweep: --out: ") and str(tmp_path / "file") in error


@pytest.mark.parametrize(
    "asked, told", [("workload.batch_size=[1,2]", "2 points x 3 stages = 6 rows"), ("stages=[vision]", "1 point x 1 stage = 1 row")]
)
def test_command_counts_in_words(tmp_path, capsys, asked, told):
    assert cli.main(["sweep", "workload=tiny", asked, "--out", str(tmp_path / "run"), "--format", "csv"]) == 0
    assert f": {told}\n" in capsys.readouterr().err


def test_command_refuses_unknown_formats(tmp_path, capsys):
    assert cli.main(["sweep", "sweep=vendor", "--out", str(tmp_path / "run"), "--format", "xml"]) == 2
    assert "--format: 'xml' is not one of parquet, csv, json, sqlite" in capsys.readouterr().err
    assert entries(tmp_path) == []


KILLED = """
import sys
from ocr_flops import cli
from ocr_flops.studies.sweeps import runner
import ocr_flops.studies.sweeps.plan, polars, sqlite3, tqdm
runner.PART_POINTS = 1000
print("begun", flush=True)
sys.exit(cli.main(sys.argv[1:]))
"""
LONGER = ["workload.columns=1:20", "workload.rows=1:20", "workload.prompt_tokens=1:60", "attention=[eager,flash]"]


@pytest.mark.slow
def test_kill_9_at_random_moments_twenty_times(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "PART_POINTS", 1000)
    chance, whole = random.Random(9), sweeps.load_sweep(LONGER).frame()
    kills, number = 0, 0
    while kills < 20:
        out = tmp_path / f"run{number}"
        command = [
            sys.executable,
            "-c",
            KILLED,
            "sweep",
            *LONGER,
            "--out",
            str(out),
            "--format",
            "parquet,sqlite" if number % 2 else "parquet",
        ]
        parts = folder.partial_of(out) / "stages"
        before = {path.name: path.stat().st_mtime_ns for path in parts.glob("part-*.parquet")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            process.stdout.readline()
            if kills < 20:
                time.sleep(chance.uniform(0, 0.9))
            process.kill()
        kills += process.returncode == -9
        where = out / "stages" if out.exists() else parts
        after = {path.name: path.stat().st_mtime_ns for path in where.glob("part-*.parquet")}
        assert before.items() <= after.items()  # what was finished was neither lost nor computed again
        if out.exists() or kills == 20:
            subprocess.run(command, check=True, capture_output=True)
            rows = sweeps.read(out).collect()
            assert rows.equals(whole)  # nothing lost, nothing doubled
            assert {file["path"] for file in sweeps.read_manifest(out)["files"]} == {
                str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()
            } - {"manifest.json"}
            shutil.rmtree(out)
            assert entries(tmp_path) == []
            number += 1
