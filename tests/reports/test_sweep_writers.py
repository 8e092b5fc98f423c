"""A sweep as files: the same rows in every format, tables with keys and indexes, pictures and reports that the manifest lists."""

import csv
import json
import re
import sqlite3

import pytest

from ocr_flops.cli import main
from ocr_flops.reports.sweep_writers import write_sweep
from ocr_flops.studies.sweeps import runner
from ocr_flops.studies.sweeps.folder import read_manifest
from ocr_flops.studies.sweeps.plan import load_sweep
from tests.support.sweep_results import read_table

SMALL = ["workload.columns=1:5", "workload.rows=1:4", "attention=[eager,flash]", "workload.output_tokens=7"]


@pytest.mark.parametrize("part_points", [7, 100])
def test_every_format_holds_the_same_rows(tmp_path, monkeypatch, part_points):
    monkeypatch.setattr(runner, "PART_POINTS", part_points)
    sweep, out = load_sweep(SMALL), tmp_path / "run"
    manifest = write_sweep(sweep, out, ("parquet", "csv", "json", "sqlite"))
    frame = sweep.stages_frame()
    parquet = "stages.parquet" if part_points == 100 else "stages"
    texts = {f"{table}.{kind}" for table in ("stages", "points") for kind in ("csv", "json")}
    assert {path.name for path in out.iterdir()} == {"manifest.json", "sweep.sqlite", parquet, parquet.replace("stages", "points"), *texts}
    assert read_table(out).collect().equals(frame)
    assert json.loads((out / "stages.json").read_text()) == frame.to_dicts()
    with (out / "stages.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = ("point", "io_bytes", "tensor_flops")
    assert [{name: int(row[name]) for name in columns} for row in rows] == frame.select(columns).to_dicts()
    assert len(rows) == frame.height == manifest["rows"]
    database = sqlite3.connect(out / "sweep.sqlite")
    assert database.execute("SELECT * FROM stages ORDER BY rowid").fetchall() == frame.rows()
    info = database.execute("PRAGMA table_info(stages)").fetchall()
    assert [row[1] for row in info if row[5]] == ["point", "stage"]
    assert {row[1]: row[2] for row in info}.items() >= {"io_bytes": "INTEGER", "stage": "TEXT", "arithmetic_intensity": "REAL"}.items()
    assert len(database.execute("PRAGMA index_list(stages)").fetchall()) >= 5
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("INSERT INTO stages SELECT * FROM stages LIMIT 1")
    database.close()


def test_the_command_writes_all_of_it_and_lists_it(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["sweep", "workload.columns=2", "workload.rows=[1,2]", "--out", str(out), "--ttft", "0.1"]
    assert main([*command, "--format", "all"]) == 0
    assert "2 points x 3 stages = 6 rows" in capsys.readouterr().err
    manifest = read_manifest(out)
    assert manifest["command"] == ["ocr-flops", *command[:5], "--format", "all", "--ttft", "0.1"]
    listed = {one["path"] for one in manifest["files"]}
    assert {"report.md", "report.html", "charts/flops.svg", "charts/flops.png", "stages.parquet", "stages.csv"} <= listed
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "TTFT 100 ms" in text and all((out / path).is_file() for path in re.findall(r"\]\((charts/[^)]*)\)", text))
    assert (out / "charts/flops.png").read_bytes().startswith(b"\x89PNG")
    assert main([*command, "--overwrite", "--tpot", "-1"]) == 2
    assert "--tpot: -1.0" in capsys.readouterr().err
    assert main([*command, "--format", "xml"]) == 2
    assert "--format: 'xml' is not one of parquet, csv, json, sqlite" in capsys.readouterr().err
