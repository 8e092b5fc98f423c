"""Rows of whole points equal the estimate of each point; totals are sums over a folder's pages."""

import polars as pl
import pytest
from PIL import Image

import ocr_flops as of
from ocr_flops.reports.sweep_writers import write_sweep
from ocr_flops.studies.sweeps.plan import load_sweep
from ocr_flops.studies.sweeps.points import totals_frame
from ocr_flops.timing.planning import compare_devices
from tests.support.sweep_results import read_table


@pytest.fixture
def computed(tmp_path):
    """Computes a sweep, and reads its tables."""

    def compute(*overrides):
        write_sweep(load_sweep(overrides), tmp_path / "run", ["parquet"])
        return lambda table: read_table(tmp_path / "run", table).collect()

    return compute


def test_a_point_has_the_times_memory_and_cost_of_its_estimate(computed, model):
    read = computed("hardware=[l4,h200]", "workload.batch_size=[1,40]", "workload.columns=2", "workload.rows=3", "sweep.price={l4: 0.8}")
    points = read("points")
    assert (
        points.height == 4 and read("stages")["needed_bytes"].unique().sort().to_list() == points["needed_bytes"].unique().sort().to_list()
    )
    for row in points.iter_rows(named=True):
        estimate = of.estimate(model, of.Workload.from_grid(2, 3, batch_size=row["batch_size"]))
        timing = estimate.on(row["hardware"])
        assert (row["needed_bytes"], row["fits"]) == (estimate.footprint.total_bytes, timing.fits)  # with vision and prefill as one call
        plan = compare_devices(estimate, [row["hardware"]], price_per_hour={"l4": 0.8}).row(0, named=True)
        same = [name for name in plan if name in row and isinstance(plan[name], float | None)]
        assert len(same) >= 18 and {name: row[name] for name in same} == pytest.approx({name: plan[name] for name in same})
        assert row["total_flops"] == sum(numbers["total_flops"] for numbers in estimate.stage_numbers.values())
    assert points.filter(pl.col("hardware") == "h200")["cost_per_1000_pages"].null_count() == 2  # no price
    assert points.filter(~pl.col("fits"))["expected_pages_per_second"].to_list() == [None]


def test_modules_have_a_table_of_their_own(computed, model):
    read = computed("workload=tiny", "sweep.level=module", "attention=[eager,sdpa]")
    modules = read("modules")
    ours = of.estimate(model, of.Workload.from_image(1654, 2339, "tiny"), "sdpa").modules
    assert modules.filter(pl.col("attention") == "sdpa")["total_flops"].to_list() == ours["total_flops"].to_list()
    assert modules.select("point", "stage", "module").is_unique().all()


def test_totals_are_sums_over_the_pages_of_a_folder(computed, tmp_path):
    for width in (600, 1000, 1400):
        Image.new("RGB", (width, 800)).save(tmp_path / f"{width}.png")
    read = computed("sweep=images", f"sweep.images={tmp_path}", "hardware=[l4,h200]", "sweep.price=2", "workload.batch_size=2")
    points, totals = read("points"), read("totals")
    assert totals["hardware"].to_list() == ["l4", "h200"] and totals["pages"].to_list() == totals["fitting"].to_list() == [3, 3]
    assert totals_frame(points.with_columns(fits=None).lazy())["fitting"].to_list() == [None, None]  # without a device none is counted
    for row in totals.iter_rows(named=True):
        pages = points.filter(pl.col("hardware") == row["hardware"])
        assert row["image_tokens"] == pages["image_tokens"].sum() and 2 * row["total_flops"] == pages["total_flops"].sum()
        for end in ("", "_low", "_high"):
            assert row[f"gpu_hours{end}"] == pytest.approx(pages[f"gpu_hours_per_1000_pages{end}"].sum() / 1000)
            assert row[f"cost{end}"] == pytest.approx(2 * row[f"gpu_hours{end}"])
