"""Canonical shapes: the most square grid of every number of tiles, in Python and as files."""

import sqlite3

import numpy as np
import polars as pl
import pytest

import ocr_flops as of
from ocr_flops import cli
from ocr_flops.spec.tiling import choose_grid, rule_grids
from ocr_flops.studies.sweeps.shapes import shapes_frame


def test_every_number_of_tiles_has_its_most_square_grid():
    frame = shapes_frame(1, 1000)
    assert frame["tiles"].to_list() == list(range(1, 1001))
    for tiles, columns, rows in frame.select("tiles", "columns", "rows").iter_rows():
        assert columns * rows == tiles and columns <= rows
        assert not any(tiles % side == 0 for side in range(columns + 1, int(tiles**0.5) + 1))


@pytest.mark.parametrize("mode", ["gundam", "gundam_m"])
def test_tokens_are_those_of_the_workload(mode):
    frame = shapes_frame(1, 60, mode)
    for row in frame.iter_rows(named=True):
        workload = of.Workload.from_grid(row["columns"], row["rows"], mode)
        assert row["image_tokens"] == workload.image_tokens == row["global_tokens"] + row["tile_tokens"]
        assert (row["global_px"], row["tile_px"]) == (workload.global_px, workload.tile_px)
    assert frame["tile_tokens"][0] == 0  # one tile is no tile


def test_supported_shapes_are_those_that_the_vendor_cuts_their_image_into():
    frame = shapes_frame(1, 1000)
    chosen = np.stack(choose_grid(frame["image_width_px"].to_numpy(), frame["image_height_px"].to_numpy()), axis=1)
    cut = (chosen == frame.select("columns", "rows").to_numpy()).all(axis=1)
    assert frame["vendor_supported"].to_list() == cut.tolist()
    assert frame.filter("vendor_supported")["tiles"].to_list() == list(range(1, 10))
    assert {grid for grid in frame.filter("vendor_supported").select("columns", "rows").rows()} <= {(1, 1), *rule_grids()}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [((0, 5), "min_tiles: 0"), ((6, 5), "max_tiles: 5"), ((1, 10_001), "max_tiles: 10001"), ((1, 5, "base"), "mode: 'base' has no tiles")],
)
def test_what_has_no_shapes(arguments, names):
    with pytest.raises(of.SpecError, match=names):
        shapes_frame(*arguments)


def test_command_writes_both_files(tmp_path, capsys):
    assert cli.main(["shapes", "--min-tiles", "2", "--max-tiles", "40", "--out", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "new" / name) for name in ("shapes.sqlite", "shapes.parquet")]
    frame = pl.read_parquet(tmp_path / "new" / "shapes.parquet")
    assert frame.equals(shapes_frame(2, 40))
    database = sqlite3.connect(tmp_path / "new" / "shapes.sqlite")
    assert database.execute("SELECT * FROM shapes ORDER BY tiles").fetchall() == [tuple(map(int, row)) for row in frame.rows()]
    key = [row[1] for row in database.execute("PRAGMA table_info(shapes)") if row[5]]
    assert key == ["tiles"] and len(database.execute("PRAGMA index_list(shapes)").fetchall()) >= 3
    database.close()


def test_command_replaces_other_shapes_only_when_told(tmp_path, capsys):
    write, again = ["shapes", "--max-tiles", "40", "--out", str(tmp_path)], ["shapes", "--max-tiles", "50", "--out", str(tmp_path)]
    assert cli.main(write) == cli.main(write) == 0  # the same once more
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert cli.main(again) == 2
    assert "shapes.sqlite holds other shapes; choose another folder, or --overwrite" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    assert cli.main([*again, "--overwrite"]) == 0
    assert pl.read_parquet(tmp_path / "shapes.parquet").equals(shapes_frame(1, 50))


def test_command_names_what_is_wrong(tmp_path, capsys):
    assert cli.main(["shapes", "--min-tiles", "9", "--max-tiles", "3", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "ocr-flops shapes: max_tiles: 3 is not a whole number from 9 to 10000\n"
