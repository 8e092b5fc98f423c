"""`ocr-flops sweep` counts what it computes; `ocr-flops shapes` writes both files and replaces others only with --overwrite."""

import sqlite3

import polars as pl
import pytest
from PIL import Image

from ocr_flops import cli
from ocr_flops.studies.sweeps.shapes import shapes_frame


@pytest.mark.parametrize(
    ("override", "counts"),
    [("workload.batch_size=[1,2]", "2 points x 3 stages = 6 rows"), ("stages=[vision]", "1 point x 1 stage = 1 row")],
)
def test_sweep_counts_in_words(tmp_path, capsys, override, counts):
    assert cli.main(["sweep", "workload=tiny", override, "--out", str(tmp_path / "run"), "--format", "csv"]) == 0
    found = capsys.readouterr()
    assert f": {counts}\n" in found.err and found.out == f"{tmp_path / 'run'}\n"


def test_a_folder_of_pages_is_summed_up_and_names_show_no_escapes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "scans").mkdir()
    Image.new("L", (800, 600)).save(tmp_path / "scans" / "a.png")
    (tmp_path / "scans" / "b\x1b[31m.png").write_bytes(b"no image")
    command = [
        "sweep",
        "sweep=images",
        f"sweep.images={tmp_path / 'scans'}",
        "hardware=[l4,h200]",
        "sweep.price=2",
        "--out",
        str(tmp_path / "run"),
    ]
    assert cli.main(command) == 0
    found = capsys.readouterr()
    assert "b\\x1b[31m.png: " in found.err and "\x1b" not in found.err
    heads, _, *rows = (line.split() for line in found.err.splitlines()[-4:])
    assert heads[:3] == ["hardware", "pages", "fitting"] and [row[:3] for row in rows] == [["l4", "1", "1"], ["h200", "1", "1"]]


def test_shapes_writes_both_files(tmp_path, capsys):
    assert cli.main(["shapes", "--min-tiles", "2", "--max-tiles", "40", "--out", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "new" / name) for name in ("shapes.sqlite", "shapes.parquet")]
    frame = pl.read_parquet(tmp_path / "new" / "shapes.parquet")
    assert frame.equals(shapes_frame(2, 40))
    database = sqlite3.connect(tmp_path / "new" / "shapes.sqlite")
    assert database.execute("SELECT * FROM shapes ORDER BY tiles").fetchall() == [tuple(map(int, row)) for row in frame.rows()]
    key = [row[1] for row in database.execute("PRAGMA table_info(shapes)") if row[5]]
    assert key == ["tiles"] and len(database.execute("PRAGMA index_list(shapes)").fetchall()) >= 3
    database.close()


def test_shapes_replaces_others_only_with_overwrite(tmp_path, capsys):
    write, again = ["shapes", "--max-tiles", "40", "--out", str(tmp_path)], ["shapes", "--max-tiles", "50", "--out", str(tmp_path)]
    assert cli.main(write) == cli.main(write) == 0  # the same once more
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert cli.main(again) == 2
    assert "shapes.sqlite holds other shapes; choose another folder, or --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    assert cli.main([*again, "--overwrite"]) == 0
    assert pl.read_parquet(tmp_path / "shapes.parquet").equals(shapes_frame(1, 50))


def test_shapes_names_what_is_wrong(tmp_path, capsys):
    assert cli.main(["shapes", "--min-tiles", "9", "--max-tiles", "3", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "ocr-flops shapes: --max-tiles: 3 is not a whole number from 9 to 10000\n"
