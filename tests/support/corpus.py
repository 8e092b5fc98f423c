"""Tables of pages with what is to come of them, by the tile rule and by estimates page by page."""

import numpy as np
import polars as pl

import ocr_flops as of
from ocr_flops.spec.catalog import modes
from ocr_flops.spec.workload import Workload
from ocr_flops.studies.corpus.grids import ratio_steps
from ocr_flops.studies.corpus.groups import group_pages

TILED = tuple(mode for mode in modes() if mode.tile_px)
PAGES = pl.DataFrame(
    {
        "name": list("abcdef"),
        "width_px": [1654, 900, 640, 0, 4000, 700],
        "height_px": [2339, 1200, 500, 9, 500, 5000],
        "prompt_tokens": [10, 0, 20, 1, 300, 15],
        "output_tokens": [800, 0, 17, 1, 2000, 16],
        "mode": ["gundam", "base", None, "gundam", "tiny", "gundam"],
    }
)


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


def pages_table():
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


def check_costs(frame, model):
    """Whether the costs of `PAGES` are those of estimates."""
    assert frame["name"].to_list() == PAGES["name"].to_list()
    for row in frame.iter_rows(named=True):
        if row["width_px"] is None:
            assert row["refused"].startswith("width_px is missing") and row["total_flops"] is None is row["gpu_seconds"]
            continue
        lengths = {name: row[name] for name in ("prompt_tokens", "output_tokens")}
        page = of.Workload.from_image(row["width_px"], row["height_px"], row["mode"] or "gundam", **lengths)
        stages = of.estimate(model, page).stage_numbers.values()
        assert row["refused"] is None and row["gpu_seconds"] > 0
        assert (row["columns"], row["rows"], row["image_tokens"]) == (page.columns, page.rows, page.image_tokens)
        assert row["total_flops"] == sum(stage["total_flops"] for stage in stages)
