"""The summary of a verification: what a report says, and what is kept as evidence."""

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.evidence import verify
from ocr_flops.evidence.records import store
from ocr_flops.evidence.verify import summary
from ocr_flops.measure.plan import build_request


@pytest.fixture(scope="module")
def result(tiny, serve):
    workload = of.Workload(256, 128, 2, 1, output_tokens=3)
    return serve(build_request(tiny, [workload], device="meta", attention="sdpa", prefill_logits="all"))[0]


def compared(tiny, result, **choice):
    return summary.add_point(verify.compare_numbers(tiny, result, **choice), result)


def test_a_report_says_where_it_differs(tiny, result):
    frame = compared(tiny, result, levels=("layer",))
    assert summary.format_report(frame).endswith(f"{frame.height} numbers at 1 point: all equal, as integers")
    place = (pl.col("module") == "clip.mlp") & (pl.col("layer") == 1) & (pl.col("column") == "torch_flops")
    broken = frame.with_columns(
        measured=pl.when(place).then(7).otherwise("measured"), difference=pl.when(place).then(-5).otherwise("difference")
    )
    *_, line, verdict = summary.format_report(broken).splitlines()
    assert line.startswith("differs: vision clip.mlp layer 1 torch_flops: measured 7, analytic ")
    assert line.endswith(
        ", difference -5 (count sdpa all logits bf16, 256 px view, 2 x 1 grid of 128 px, 10 prompt + 3 output tokens, batch 1)"
    )
    assert verdict == f"{frame.height} numbers at 1 point: 1 differ"
    assert summary.summarise(broken).filter(pl.col("largest_difference") != 0)["largest_difference"].to_list() == [5]


def test_a_record_is_read_back(tiny, result, tmp_path):
    frame = compared(tiny, result)
    summary.write_verification(frame, result.ran, tmp_path / "kept.json")
    kept = summary.read_verification(tmp_path / "kept.json")
    assert (kept["numbers"], len(kept["rows"])) == (frame.height, summary.summarise(frame).height)
    assert sum(row["points"] for row in kept["rows"]) == frame.height
    assert {row["level"] for row in kept["rows"]} == set(verify.LEVELS)
    assert kept["versions"]["torch"] == result.ran["torch"]
    assert all(row["largest_difference"] == 0 for row in kept["rows"])
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


def test_the_evidence_that_is_shipped_has_no_difference():
    kept = summary.read_verification()
    assert kept["versions"]["device"] == "meta"
    assert {row["kind"] for row in kept["rows"]} == {"count", "trace"}
    assert {row["attention"] for row in kept["rows"]} == {"eager", "sdpa"}
    assert {row["level"] for row in kept["rows"]} == set(verify.LEVELS)
    assert all(row["measured"] == row["analytic"] and row["largest_difference"] == 0 for row in kept["rows"])
    assert {row["column"] for row in kept["rows"]} == {column for columns in verify.WHAT.values() for column in columns}


def test_evidence_is_not_written_into_an_installed_package(tiny, result, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PACKAGE", tmp_path / "ocr_flops")
    with pytest.raises(of.SpecError, match="^--record: .*/verification.json is in an installed package"):
        summary.write_verification(compared(tiny, result), result.ran, tmp_path / "ocr_flops" / "verification.json")
    assert not list(tmp_path.iterdir())
