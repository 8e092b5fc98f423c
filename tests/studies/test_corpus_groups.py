"""Groups of pages: the same from every engine and from the tile rule page by page, as integers."""

import narwhals as nw
import numpy as np
import polars as pl
import pytest

from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import load_mode, load_model, modes
from ocr_flops.spec.tiling import MAX_SIDE_PX
from ocr_flops.studies.corpus.groups import group_pages, with_grids
from tests.support.corpus import TILED, check_groups, expected_codes, pages_table, random_sizes, sizes_on_ties


def test_the_rule_is_the_same_for_every_size():
    edges = np.array([1, 2, 639, 640, 641, 1023, 1024, 1025, 1280, 1920, 99_999, MAX_SIDE_PX])
    lattice = np.stack(np.meshgrid(edges, edges), axis=-1).reshape(-1, 2)
    half_areas = [
        (side, tile**2 * tiles // 2 // side + more)
        for tile in (640, 1024)
        for tiles in range(2, 10)
        for side in range(300, 2400, 35)
        for more in (0, 1)
    ]
    sizes = np.concatenate([sizes_on_ties(), random_sizes(100_000, 5000), random_sizes(100_000, MAX_SIDE_PX), lattice, half_areas])
    assert len(sizes) > 300_000
    found = with_grids(pl.LazyFrame({"width": sizes[:, 0], "height": sizes[:, 1]}), TILED).collect()
    for mode in TILED:
        wrong = np.flatnonzero(found[mode.name].to_numpy() != expected_codes(sizes, mode))
        assert not len(wrong), f"{mode.name}: {len(wrong)} wrong, first {sizes[wrong[:3]].tolist()}"


@pytest.fixture(scope="module")
def table():
    return pages_table()


def test_polars_gives_the_groups(table):
    check_groups(table.lazy(), table)
    check_groups(table, table)


def test_duckdb_gives_the_same_groups(table):
    duckdb = pytest.importorskip("duckdb")
    pages = table
    check_groups(duckdb.sql("select * from pages"), pages)


def test_a_table_of_sizes_alone_is_enough():
    found = group_pages(pl.LazyFrame({"width": [1654, 1654, 500], "height": [2339, 2339, 600]}), [load_mode("gundam")])
    assert found.frame.to_dicts() == [{"gundam": 11, "pages": 1}, {"gundam": 23, "pages": 2}]
    assert (found.pages, found.refused) == (3, {})


def test_pages_that_a_page_rule_refuses_are_counted_and_stop_nothing():
    rule = load_model("glm_ocr").learned.page_rule
    pages = {"width": [1654, 10, 1], "height": [2339, 9000, 9000], "pages": [5, 3, 2]}
    found = group_pages(pl.LazyFrame(pages), modes(), rule)
    assert found.pages == 5 and found.refused == {rule.refusal: 5} and "200 times" in rule.refusal
    moded = group_pages(pl.LazyFrame(pages | {"mode": ["tiny", "no mode", None]}), modes(), rule)
    assert moded.frame.equals(found.frame) and moded.refused == found.refused
    assert moded.left_out == [*found.left_out, "the table's column mode, as the model takes pages by a rule of its own"]


def test_floats_count_where_they_are_whole():
    found = group_pages(pl.LazyFrame({"width": [1654.0, 1654.5, float("nan"), None], "height": [2339] * 4}), [load_mode("gundam")])
    assert (found.pages, list(found.refused.values())) == (1, [3])


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ({"w": [1], "height": [2]}, "pages: no columns width_px and height_px, nor width and height, among w, height"),
        ({"width": [1], "height": [2], "mode": [3]}, "pages: the column mode is Int64; names of resolution modes are needed"),
        ({"width": ["1"], "height": [2]}, "pages: the column width is String; whole numbers are needed"),
    ],
)
def test_a_wrong_table_is_named(pages, message):
    with pytest.raises(SpecError, match=f"^{message}$"):
        group_pages(pl.LazyFrame(pages), modes())


def test_what_is_no_frame_is_named():
    with pytest.raises(SpecError, match="pages: int is no frame"):
        group_pages(3, modes())


def test_no_page_is_collected(table):
    """The query that is handed to an engine ends in its aggregation."""
    from ocr_flops.studies.corpus import groups

    assert nw.from_native(table.lazy()).implementation.is_polars()
    plan = nw.to_native(groups._grouped(with_grids(table.lazy(), TILED), ["refused", "gundam"], [])).explain()
    assert plan.lstrip().startswith("AGGREGATE")
