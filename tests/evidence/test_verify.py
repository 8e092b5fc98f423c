"""`verify`: its default set on the real model's dimensions, as integers (all of it under `make verify`), and what it reports of differences."""

import copy
import json

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops import cli
from ocr_flops.evidence import verify
from ocr_flops.evidence.verify import summary
from ocr_flops.evidence.verify.levels import TRACED
from ocr_flops.measure.plan import build_request
from ocr_flops.spec.run_spec import load_run
from ocr_flops.spec.tiling import rule_grids

ROWS = {"count": 27, "trace": 27 * 7}  # modules of all stages, times columns
CHOSEN = of.Workload.from_grid(2, 1, output_tokens=2)  # of which DESIGN section 4 gives check values


def assert_all_equal(model, case):
    """Runs a case on the real model and compares every number of it; returns the results."""
    results, compared = [message for _, message in verify.run(model, [case])], 0
    for message in results:
        frame = verify.differences(model, message)
        assert frame.filter(pl.col("difference") != 0).to_dicts() == [], (case[:3], message.workload)
        compared += frame.filter((pl.col("level") == "module") & ~pl.col("column").is_in(["parameters", "kv_cache_bytes"])).height
    assert compared == len(case.workloads) * ROWS[case.kind]
    return results


@pytest.mark.verification
@pytest.mark.parametrize("case", verify.suite(), ids=lambda case: f"{case.kind}-{case.attention}-{case.prefill_logits}")
def test_every_number_of_the_default_set_is_equal(model, case):
    assert_all_equal(model, case)


def test_a_chosen_point_counts_as_published(model):
    """The check values of DESIGN section 4, seen by torch's counter here."""
    (message,) = assert_all_equal(model, verify.Case("count", "sdpa", "all", (CHOSEN,), decode_steps=2))
    assert message.stages["vision"]["flops"] == 1_916_266_708_992
    assert message.stages["prefill"]["flops"] == 580_990_955_520


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_chosen_point_is_traced_as_estimated(model, attention):
    assert_all_equal(model, verify.Case("trace", attention, "last", (CHOSEN,), decode_steps=1))


def test_the_default_set_holds_what_was_promised():
    cases = [case for case in verify.suite() if case.kind == "count"]
    both = {(case.attention, case.prefill_logits) for case in cases}
    assert both == {("eager", "all"), ("eager", "last"), ("sdpa", "all"), ("sdpa", "last")}
    assert {workload.batch_size for case in cases for workload in case.workloads} == {1, 2}
    for case in cases:
        assert {(1, 1), *rule_grids(), (4, 5), (10, 10)} <= {(workload.columns, workload.rows) for workload in case.workloads}
        assert {workload.mode for workload in case.workloads} == {"tiny", "small", "base", "large", "gundam", "gundam_m"}
        assert all(workload.output_tokens == case.decode_steps == 3 for workload in case.workloads)
    assert {case.attention for case in verify.suite() if case.kind == "trace"} == {"eager", "sdpa"}
    assert 0 < sum(len(case.workloads) for case in verify.suite(quick=True)) < sum(len(case.workloads) for case in verify.suite()) / 4


@pytest.fixture(scope="module")
def message(tiny, serve):
    workload = of.Workload(256, 128, 2, 1, output_tokens=9)
    return serve(build_request(tiny, [workload], device="meta", attention="sdpa", prefill_logits="all"))[0]


def test_a_result_is_compared_with_what_ran(tiny, message):
    config = verify.analytic(tiny, message).config
    assert (config.attention.kernel("sam"), config.attention.name, config.prefill_logits, config.engine.name) == (
        "sdpa",
        "sdpa",
        "all",
        "transformers",
    )
    assert verify.analytic(tiny, message).workload.output_tokens == 3


def test_compare_has_a_total_for_every_stage(tiny, message):
    frame = verify.compare(tiny, message)
    for stage in ("vision", "prefill", "decode"):
        of_stage = frame.filter(pl.col("stage") == stage)
        assert of_stage["module"].to_list()[-1] == "total"
        assert of_stage["counted_flops"][-1] == of_stage["counted_flops"][:-1].sum() == message.stages[stage]["flops"]
        assert of_stage["analytic_flops"][-1] == of_stage["analytic_flops"][:-1].sum()
    assert (frame["difference"] == frame["counted_flops"] - frame["analytic_flops"]).all()


def test_one_flop_too_many_is_a_difference(tiny, message):
    changed = copy.deepcopy(message)
    changed.stages["prefill"]["modules"]["lm_head"] += 1
    wrong = verify.differences(tiny, changed).filter(pl.col("difference") != 0).to_dicts()
    found = [(row["level"], row["stage"], row["module"], row["column"], row["difference"]) for row in wrong]
    assert found == [("module", "prefill", "lm_head", "torch_flops", 1)]


def test_one_parameter_too_many_is_a_difference(tiny, message):
    changed = copy.deepcopy(message)
    changed.ran["parameters"] += 1
    wrong = verify.differences(tiny, changed).filter(pl.col("difference") != 0).to_dicts()
    assert [(row["column"], row["difference"]) for row in wrong] == [("parameters", 1)]


def test_what_torch_missed_is_named(tiny, message):
    changed = copy.deepcopy(message)
    changed.stages["vision"]["missed"] = ["flash_attn"]
    notes = verify.compare(tiny, changed).filter(pl.col("stage") == "vision")["note"].unique().to_list()
    assert notes == ["torch cannot see: flash_attn"]


@pytest.mark.parametrize("column", TRACED)
def test_a_byte_or_flop_too_many_in_a_trace_is_a_difference(tiny, serve, column):
    traced = serve(build_request(tiny, [of.Workload(64, output_tokens=1)], device="meta", kind="trace", stages=("prefill",)))[0]
    traced.stages["prefill"]["trace"]["decoder.router"][column] += 1
    wrong = verify.differences(tiny, traced, levels=("module",)).filter(pl.col("difference") != 0).to_dicts()
    assert [(row["module"], row["column"], row["difference"]) for row in wrong] == [("decoder.router", column, 1)]


def framed(tiny, message, **choice):
    same = [pl.lit(value).alias(name) for name, value in summary.conditions(message).items()]
    return verify.differences(tiny, message, **choice).select(*same, pl.all())


def test_a_report_says_where_it_differs(tiny, message):
    frame = framed(tiny, message, levels=("layer",))
    assert summary.report(frame).endswith(f"{frame.height} numbers at 1 point: all equal, as integers")
    place = (pl.col("module") == "clip.mlp") & (pl.col("layer") == 1) & (pl.col("column") == "torch_flops")
    broken = frame.with_columns(
        measured=pl.when(place).then(7).otherwise("measured"), difference=pl.when(place).then(-5).otherwise("difference")
    )
    *_, line, verdict = summary.report(broken).splitlines()
    assert line.startswith("differs: vision clip.mlp layer 1 torch_flops: measured 7, analytic ")
    assert line.endswith(
        ", difference -5 (count sdpa all logits bf16, 256 px view, 2 x 1 grid of 128 px, 10 prompt + 3 output tokens, batch 1)"
    )
    assert verdict == f"{frame.height} numbers at 1 point: 1 differ"
    assert summary.summary(broken).filter(pl.col("largest_difference") != 0)["largest_difference"].to_list() == [5]


def test_a_record_is_read_back(tiny, message, tmp_path):
    frame = framed(tiny, message)
    summary.record(frame, message.ran, tmp_path / "kept.json")
    kept = summary.recorded(tmp_path / "kept.json")
    assert (kept["numbers"], len(kept["rows"])) == (frame.height, summary.summary(frame).height)
    assert sum(row["points"] for row in kept["rows"]) == frame.height
    assert {row["level"] for row in kept["rows"]} == set(verify.LEVELS)
    assert kept["versions"]["torch"] == message.ran["torch"]
    assert all(row["largest_difference"] == 0 for row in kept["rows"])
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


def test_the_evidence_that_is_shipped_has_no_difference():
    kept = summary.recorded()
    assert kept["versions"]["device"] == "meta"
    assert {row["kind"] for row in kept["rows"]} == {"count", "trace"}
    assert {row["attention"] for row in kept["rows"]} == {"eager", "sdpa"}
    assert {row["level"] for row in kept["rows"]} == set(verify.LEVELS)
    assert all(row["measured"] == row["analytic"] and row["largest_difference"] == 0 for row in kept["rows"])
    assert {row["column"] for row in kept["rows"]} == {column for columns in verify.WHAT.values() for column in columns}


@pytest.fixture
def offline(monkeypatch, message):
    """`verify` on one result that is already there; `spoil` makes it wrong. Returns the cases that it was asked to run."""

    def install(spoil=lambda message: None):
        changed, asked = copy.deepcopy(message), []
        spoil(changed)

        def run(model, cases, **options):
            asked.extend(cases)
            yield cases[0], changed

        monkeypatch.setattr(verify, "run", run)
        return asked

    return install


def spoil(message):
    message.stages["vision"]["modules"]["clip.mlp"] -= 2


MODULES = ["model=tiny_test", "--level", "module", "--what", "flops"]


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_the_command_exits_0_when_all_is_equal(offline, capsys, output):
    offline()
    assert cli.main(["verify", *MODULES, "--format", output]) == 0
    text = capsys.readouterr().out
    if output == "json":
        data = json.loads(text)
        assert (data["compared"], data["differences"], len(data["rows"])) == (27, 0, 27)
        assert data["versions"]["device"] == "meta"
    elif output == "csv":
        assert len(text.splitlines()) == 28
        assert text.splitlines()[0].startswith("kind,attention,prefill_logits,dtype,")
    else:
        assert "27 numbers at 1 point: all equal, as integers" in text


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_the_command_exits_1_on_a_difference(offline, capsys, output):
    offline(spoil)
    assert cli.main(["verify", *MODULES, "--format", output]) == 1
    text = capsys.readouterr().out
    if output == "json":
        data = json.loads(text)
        assert [(row["module"], row["difference"]) for row in data["rows"] if row["difference"]] == [("clip.mlp", -2)]
        assert data["differences"] == 1
    elif output == "table":
        assert "differs: vision clip.mlp torch_flops" in text and "1 differ" in text


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        (["--level", "total"], {"level": {"total"}}),
        (["--level", "layer,stage", "--what", "kv"], {"level": {"layer", "stage"}, "column": {"kv_cache_bytes"}}),
        (["--what", "parameters"], {"stage": {"model", "total"}, "column": {"parameters"}}),
        (["--module", "sam.mlp,clip.mlp"], {"module": {"sam.mlp", "clip.mlp"}}),
    ],
)
def test_the_command_compares_what_is_chosen(offline, capsys, options, columns):
    offline()
    assert cli.main(["verify", "model=tiny_test", *options, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    for column, values in columns.items():
        assert {row[column] for row in rows} == values


def test_the_command_runs_the_kinds_that_measure_what_is_chosen(offline, capsys):
    asked = offline()
    cli.main(["verify", "model=tiny_test", "--what", "flops"])
    assert {case.kind for case in asked} == {"count", "trace"}
    asked.clear()
    assert cli.main(["verify", "model=tiny_test", "--what", "traffic", "--kind", "count"]) == 2
    assert asked == [] and "--what: traffic cannot be had from --kind count" in capsys.readouterr().err


def test_the_command_runs_one_point_as_chosen(offline, capsys):
    asked = offline()
    point = ["workload=gundam", "workload.columns=2", "workload.rows=1", "attention=eager", "attention.sam=sdpa", "dtype=fp32"]
    assert cli.main(["verify", "model=tiny_test", *point, "--decode-steps", "2"]) == 0
    assert [case.kind for case in asked] == ["count", "trace"]
    for case in asked:
        assert (case.attention.kernel("sam"), case.attention.kernel("clip"), case.dtype, case.decode_steps) == ("sdpa", "eager", "fp32", 2)
        assert [(workload.columns, workload.rows) for workload in case.workloads] == [(2, 1)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--level", "tower"], "--level: 'tower' is not one of layer, module, stage, total"),
        (["--what", "time"], "--what: 'time' is not one of flops"),
        (["--stage", "training"], "--stage: 'training'"),
        (["--module", "sam.nose"], "--module: 'sam.nose' is not one of sam.patch, "),
        (["--decode-steps", "0"], "--decode-steps: 0"),
        (["--quick", "--record"], "--record: keeps the default set"),
        (["--quick", "attention=eager"], "--quick: thins out the default set"),
        (["attention=flash"], "attention.sam: 'flash' cannot be run here; choose from eager, sdpa"),
        (["engine=remote_code"], "snapshot: engine remote_code runs the published code from a local folder"),
        (["cache=static"], "cache: 'static' cannot be run here"),
        (["hardware=h200"], "hardware: 'h200' has no part in verify"),
        (["--audit", "--quick"], "--quick: has no part in an audit"),
        (["workload.columns=0"], "columns"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(offline, capsys, options, said):
    offline()
    assert cli.main(["verify", *options]) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith("ocr-flops verify: ") and said in error


def test_nothing_compared_is_no_success(offline, capsys):
    offline()
    assert cli.main(["verify", "model=tiny_test", "--level", "layer", "--what", "traffic"]) == 2  # what came back is a count
    assert "nothing is compared" in capsys.readouterr().err


def test_a_point_is_run_with_the_attention_of_its_towers(tiny):
    case = verify.point_cases(load_run(["attention=eager", "attention.clip=sdpa"]), ("count",))[0]
    made = build_request(tiny, case.workloads, attention=case.attention)
    assert made.attention == {"sam": "eager", "clip": "sdpa", "decoder": "eager"}


def test_the_command_without_a_working_torch_is_one_line(monkeypatch, capsys):
    def failing(*arguments, **options):
        raise of.SpecError("No module named 'torch' (install it)")
        yield

    monkeypatch.setattr(verify, "run", failing)
    assert cli.main(["verify", "--quick"]) == 2
    assert capsys.readouterr().err == "ocr-flops verify: No module named 'torch' (install it)\n"
