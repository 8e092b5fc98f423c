"""The real model beside a sweep: counted and traced, in a table and beside the rows."""

import json

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.measure import client
from ocr_flops.reports.sweep_writers import write_sweep
from ocr_flops.studies.sweeps import real_model
from ocr_flops.studies.sweeps.plan import load_sweep
from tests.support.remote_snapshot import make
from tests.support.sweep_results import read_table
from tests.support.timed import Inside

SWEEP = ["sweep=vendor", "sweep.max_tiles=2", "model=tiny_test", "attention=[eager,flash,sdpa]", "measure=meta", "measured_steps=2"]


@pytest.fixture
def served(monkeypatch):
    """Requests are answered in this process; counts the points that ran."""
    ran = []

    class Counted(Inside):
        def __iter__(self):
            ran.extend(self.request.workloads)
            yield from super().__iter__()

    monkeypatch.setattr(client, "Worker", Counted)
    return ran


def test_measured_beside_analytic(tmp_path, served):
    sweep = load_sweep([*SWEEP, "workload.output_tokens=[2,5]", "hardware=[h200,l4]"])
    write_sweep(sweep, tmp_path / "run")
    frame, table = read_table(tmp_path / "run").collect(), read_table(tmp_path / "run", "measured").collect()
    assert frame.height == sweep.rows
    ran = frame.filter(pl.col("measured_steps").is_not_null())
    assert ran["attention"].cast(str).unique().sort().to_list() == ["eager", "sdpa"]
    assert ran["difference"].to_list() == [0] * ran.height
    beside = ran.filter(pl.col("measured_io_bytes").is_not_null())
    assert beside.height == ran.height * 5 // 6  # a decode of five tokens is longer than the two steps that ran
    for column in (
        "torch_flops",
        "tensor_flops",
        "vector_flops",
        "total_flops",
        "operators",
        "io_bytes",
        "kv_io_bytes",
        "peak_activation_bytes",
    ):
        assert beside[f"measured_{column}"].to_list() == beside[column].to_list(), column
    assert table.select("point", "stage", "module", "column").is_duplicated().sum() == 0
    assert set(table["point"]) == set(ran["point"]) and table["difference"].abs().max() == 0
    assert {"torch_flops", "io_bytes"} - set(table["column"].unique()) == {"io_bytes"}
    assert len(served) == 2 * 2  # grids x modes: what asks the same of the real model shares what ran
    import sqlite3

    database = sqlite3.connect(tmp_path / "run" / "sweep.sqlite")
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    assert len(database.execute("PRAGMA foreign_key_list(measured)").fetchall()) == 2
    assert database.execute("SELECT count(*) FROM measured JOIN stages USING (point, stage)").fetchone() == (table.height,)
    database.close()


def test_a_difference_is_shown(tmp_path, served):
    sweep = load_sweep([*SWEEP, "attention=eager"])
    table = real_model.compare_points(sweep, tmp_path)
    changed = table.with_columns(pl.when(pl.int_range(pl.len()) == 3).then(-5).otherwise("difference").alias("difference"))
    point, stage = table.select("point", "stage").row(3)
    joined = real_model.join_measured(sweep.stages_frame(), changed)
    assert joined.filter(pl.col("difference") == 5).select("point", pl.col("stage").cast(str)).rows() == [(point, stage)]


def test_what_ran_is_kept(tmp_path, served):
    sweep = load_sweep([*SWEEP, "attention=eager", "stages=[vision]"])
    first = real_model.compare_points(sweep, tmp_path)
    assert len(served) == 2
    one = sorted(tmp_path.iterdir())[0]
    assert json.loads(one.read_text())["event"] == "result"
    one.unlink()
    assert real_model.compare_points(sweep, tmp_path).equals(first)
    assert len(served) == 3


@pytest.mark.verification
def test_the_published_code_is_measured_where_a_snapshot_is_given(tmp_path, served, tiny):
    source = [f"snapshot={make(tiny, tmp_path / 'published')}", "trust_remote_code=true"]
    both = ["workload.columns=2", "workload.rows=1", *SWEEP[2:], "engine=[transformers,remote_code]", "attention=[vendor,eager]"]
    sweep = load_sweep([*both, *source])
    write_sweep(sweep, tmp_path / "run")
    frame, table = read_table(tmp_path / "run").collect(), read_table(tmp_path / "run", "measured").collect()
    ran = frame.filter(pl.col("measured_steps").is_not_null()).select(pl.col("engine", "attention").cast(str)).unique()
    assert sorted(ran.rows()) == [
        ("remote_code", "vendor"),
        ("transformers", "eager"),
        ("transformers", "vendor"),
    ]  # the code has no other attention
    assert table["difference"].abs().max() == 0 and table["ran"].str.contains("the published code").any()
    with pytest.raises(of.SpecError, match="^trust_remote_code: it is not true, so nothing was run"):
        real_model.compare_points(load_sweep([*both, source[0]]), tmp_path)
    with pytest.raises(of.SpecError, match="^snapshot: the real model does not run beside this sweep; add measure=meta"):
        load_sweep([text for text in (*both, *source) if not text.startswith("measure=")])


@pytest.mark.parametrize("overrides", [["attention=flash"], ["engine=remote_code"], ["cache=static"]])
def test_nothing_that_runs_here(tmp_path, overrides):
    with pytest.raises(of.SpecError, match="measure: nothing of this sweep runs here"):
        real_model.compare_points(load_sweep([*SWEEP, *overrides]), tmp_path)


def test_too_many_points(tmp_path):
    with pytest.raises(of.SpecError, match="measure: 20,000 points"):
        real_model.compare_points(load_sweep(["measure=meta", "workload.prompt_tokens=1:20000"]), tmp_path)
