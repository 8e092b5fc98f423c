"""The points that `verify` runs, on the real model's dimensions: every number equal, as integers (all points under `make verify`)."""

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.evidence import verify
from ocr_flops.measure import client
from ocr_flops.spec.catalog import load_attention, modes
from ocr_flops.spec.run_spec import load_run
from ocr_flops.spec.specs import DTYPE_BYTES
from ocr_flops.spec.tiling import rule_grids
from tests.support.timed import Inside

ROWS = {"count": 27, "trace": 27 * 8}  # modules of all stages, times columns
CHOSEN = of.Workload.from_grid(2, 1, output_tokens=2)  # of which DESIGN section 4 gives check values


def assert_all_equal(model, case):
    """Runs a case on the real model and compares every number of it; returns the results."""
    results, compared = [result for _, result in verify.run_cases(model, [case])], 0
    for result in results:
        frame = verify.compare_numbers(model, result)
        assert frame.filter(pl.col("difference") != 0).to_dicts() == [], (case.label, result.workload)
        compared += frame.filter((pl.col("level") == "module") & ~pl.col("column").is_in(["parameters", "kv_cache_bytes"])).height
    assert compared == len(case.workloads) * ROWS[case.kind]
    return results


@pytest.mark.verification
@pytest.mark.parametrize("case", verify.default_cases(), ids=lambda case: case.label)
def test_every_number_of_the_default_set_is_equal(model, case):
    assert_all_equal(model, case)


@pytest.mark.parametrize(("attention", "logits"), [pytest.param("eager", "last", marks=pytest.mark.verification), ("sdpa", "all")])
def test_a_chosen_point_is_traced_as_estimated_and_counts_as_published(model, monkeypatch, attention, logits):
    """The check values of DESIGN section 4, seen by torch's counter here."""
    monkeypatch.setattr(client, "Worker", Inside)
    (result,) = assert_all_equal(model, verify.Case("trace", load_attention(attention), logits, (CHOSEN,), decode_steps=1))
    assert result.stages["vision"]["flops"] == 1_916_266_708_992
    assert logits == "last" or result.stages["prefill"]["flops"] == 580_990_955_520


def test_the_default_set_holds_what_was_promised():
    cases = verify.default_cases()
    settings = {(case.attention.name, case.prefill_logits, case.dtype) for case in cases}
    assert settings == {(kernel, logits, dtype) for kernel in ("eager", "sdpa") for logits in ("all", "last") for dtype in DTYPE_BYTES}
    assert {workload.batch_size for case in cases for workload in case.workloads} == {1, 3, 4}
    for case in cases:
        if (case.dtype, case.prefill_logits) == ("bf16", "last"):
            assert {(1, 1), *rule_grids(), (4, 5), (10, 10)} <= {(workload.columns, workload.rows) for workload in case.workloads}
            assert {workload.mode for workload in case.workloads} == {mode.name for mode in modes()}
        assert len(case.workloads) >= 2 and all(workload.output_tokens == case.decode_steps == 3 for workload in case.workloads)
    assert {case.kind for case in cases} == {"trace"} and {case.kind for case in verify.default_cases(kind="count")} == {"count"}
    sizes = [sum(len(case.workloads) for case in verify.default_cases(quick)) for quick in (True, False)]
    assert 0 < sizes[0] < sizes[1] / 3


def test_a_point_is_run_with_the_attention_of_its_towers(tiny):
    case = verify.point_case(load_run(["model=tiny_test", "attention=eager", "attention.clip=sdpa"]))
    assert case.request(tiny).attention == {"sam": "eager", "clip": "sdpa", "decoder": "eager"}


def test_a_trace_with_data_runs_one_decode_step(tiny):
    trace = verify.Case("trace", load_attention("eager"), "last", (of.Workload(64, output_tokens=3),))
    for kind, device, steps in (("trace", "meta", 3), ("trace", "cpu", 1), ("count", "cpu", 3)):
        assert trace._replace(kind=kind).request(tiny, device).workloads[0].output_tokens == steps
