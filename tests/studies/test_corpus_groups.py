"""Groups of pages: the same from every engine and from the tile rule page by page, as integers."""

import narwhals as nw
import numpy as np
import polars as pl
import pytest

from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import load_mode, modes
from ocr_flops.spec.tiling import MAX_SIDE_PX
from ocr_flops.spec.workload import Workload
from ocr_flops.studies.corpus.grids import ratio_steps
from ocr_flops.studies.corpus.groups import group_pages, with_grids

TILED = tuple(mode for mode in modes() if mode.tile_px)


def sizes_on_ties():
    """Every size in which two ratios are equally near, and its neighbours by a pixel; 310 000 of them up to 40 000 px."""
    unit, steps = ratio_steps()
    found = []
    for bound, _ in steps[1:]:
        middle = np.gcd(bound // 2, unit)
        width, height = bound // 2 // middle, unit // middle
        scales = np.arange(1, 40_000 // max(width, height) + 1)
        for dx in (-1, 0, 1):
            found += [np.stack([scales * width + dx, scales * height], axis=1)]
    found = np.unique(np.concatenate(found), axis=0)
    return found[(found >= 1).all(axis=1)]


def random_sizes(count, most):
    return np.random.default_rng(count).integers(1, most + 1, (count, 2))


def expected_codes(sizes, mode):
    workload = Workload.from_image(sizes[:, 0], sizes[:, 1], mode)
    return 10 * workload.columns + workload.rows


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
    """Pages with all columns that a table may have, some of them wrong."""
    rng, count = np.random.default_rng(13), 20_000
    sizes = np.concatenate([random_sizes(count - 5000, 4000), sizes_on_ties()[:: len(sizes_on_ties()) // 5000 + 1]])
    count = len(sizes)
    frame = pl.DataFrame({"width_px": sizes[:, 0].astype(np.int32), "height_px": sizes[:, 1]}).with_columns(
        output_tokens=pl.Series(rng.integers(0, 3000, count)),
        prompt_tokens=pl.Series(rng.integers(5, 300, count), dtype=pl.UInt16),
        pages=pl.Series(rng.integers(0, 9, count)),
        mode=pl.Series(rng.choice([mode.name for mode in modes()], count)),
        title=pl.lit("a column of the user's own"),
    )
    wrong = {
        "width_px": [None, 0, 700],
        "height_px": [800, 800, 2**62],
        "output_tokens": [1, 1, 1],
        "prompt_tokens": [9, 9, 9],
        "pages": [2, 3, 4],
    }
    return pl.concat([frame, pl.DataFrame(wrong, schema_overrides={"width_px": pl.Int32})], how="diagonal_relaxed")


def brute_groups(table):
    """The groups of a table, page by page in NumPy."""
    rows = table.filter(pl.col("title").is_not_null() & (pl.col("pages") > 0))
    sizes = rows.select("width_px", "height_px").to_numpy().astype(np.int64)
    rows = rows.with_columns(pl.Series(mode.name, expected_codes(sizes, mode)) for mode in TILED)
    over = {name: pl.col(name).cast(pl.Int64) % 64 for name in ("prompt_tokens", "output_tokens")}
    keys = ["mode", *(mode.name for mode in TILED), "prompt_tokens", "output_tokens"]
    rows = rows.with_columns(**{f"{name}_over": part for name, part in over.items()})
    rows = rows.with_columns(**{name: pl.col(name).cast(pl.Int64) - pl.col(f"{name}_over") for name in over})
    pages, prompt, output = pl.col("pages"), pl.col("prompt_tokens_over"), pl.col("output_tokens_over")
    sums = [pages.sum(), (prompt * pages).sum(), (prompt**2 * pages).sum().alias("prompt_tokens_over_squared")]
    sums += [
        (output * pages).sum(),
        (output**2 * pages).sum().alias("output_tokens_over_squared"),
        (prompt * output * pages).sum().alias("over_product"),
    ]
    return rows.group_by(keys).agg(sums).sort(keys)


def check_groups(native, table):
    found, expected = group_pages(native, modes()), brute_groups(table)
    assert found.frame.columns == expected.columns
    assert found.frame.equals(expected.cast(found.frame.schema))
    assert sum(found.refused.values()) == 9
    assert [reason.split()[0] for reason in found.refused] == ["width_px", "height_px"]


def test_polars_gives_the_groups(table):
    check_groups(table.lazy(), table)
    check_groups(table, table)


def test_duckdb_gives_the_same_groups(table):
    duckdb = pytest.importorskip("duckdb")
    pages = table
    check_groups(duckdb.sql("select * from pages"), pages)


def test_spark_gives_the_same_groups(spark, table, tmp_path):
    table.write_parquet(tmp_path / "pages.parquet")
    check_groups(spark.read.parquet(str(tmp_path / "pages.parquet")), table)


def test_a_table_of_sizes_alone_is_enough():
    found = group_pages(pl.LazyFrame({"width": [1654, 1654, 500], "height": [2339, 2339, 600]}), [load_mode("gundam")])
    assert found.frame.to_dicts() == [{"gundam": 11, "pages": 1}, {"gundam": 23, "pages": 2}]
    assert (found.pages, found.refused) == (3, {})


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
