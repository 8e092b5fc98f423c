"""`ocr-flops verify`: what it runs and compares by its options, what it prints, and how it exits."""

import copy
import json

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops import cli
from ocr_flops.cli.verify import _write_compared as write_compared
from ocr_flops.evidence import verify
from ocr_flops.evidence.verify import counter_audit
from ocr_flops.measure.plan import build_request


@pytest.fixture(scope="module")
def message(tiny, serve):
    workload = of.Workload(256, 128, 2, 1, output_tokens=3)
    return serve(build_request(tiny, [workload], device="meta", attention="sdpa", prefill_logits="all"))[0]


@pytest.fixture
def offline(monkeypatch, message):
    """The command on one result that is already there; `spoil` makes it wrong. Returns the cases that it was asked to run."""

    def install(spoil=lambda message: None):
        changed, asked = copy.deepcopy(message), []
        spoil(changed)

        def run(model, cases, **options):
            asked.extend(cases)
            yield cases[0], changed

        monkeypatch.setattr(verify, "run_cases", run)
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
        assert text.splitlines()[0].startswith("kind,engine,attention,dtype,cache,prefill_logits,")
    else:
        assert "27 numbers at 1 point: all equal, as integers" in text


def test_names_are_whole_at_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    place = {"level": "layer", "module": "decoder.routed_experts", "measured": 2**40, "analytic": 2**40, "difference": 0}
    numbers = ({"kind": "count", "column": "torch_flops"}, {"kind": "trace", "column": "peak_activation_bytes"})
    rows = [place | {"stage": stage, "layer": layer} | one for stage in ("prefill", "decode") for layer in (1, 11) for one in numbers]
    frame = pl.DataFrame([row | {"module": name} for row in rows for name in ("decoder.routed_experts", "lm_head")])
    assert write_compared(frame, {}, 1, "table", None, frame, []) == 0
    text = capsys.readouterr().out
    assert "…" not in text and max(map(len, text.splitlines())) <= 80 and "all other columns from a trace" in text


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
    assert {case.kind for case in asked} == {"trace"}  # which counts, too
    asked.clear()
    cli.main(["verify", "model=tiny_test", "--what", "flops", "--kind", "count"])
    assert {case.kind for case in asked} == {"count"}
    asked.clear()
    assert cli.main(["verify", "model=tiny_test", "--what", "traffic", "--kind", "count"]) == 2
    assert asked == [] and "--what: traffic cannot be had from --kind count" in capsys.readouterr().err


def test_the_command_runs_one_point_as_chosen(offline, capsys):
    asked = offline()
    point = ["workload=gundam", "workload.columns=2", "workload.rows=1", "attention=eager", "attention.sam=sdpa", "dtype=fp32"]
    assert cli.main(["verify", "model=tiny_test", *point, "--decode-steps", "2"]) == 0
    assert [case.kind for case in asked] == ["trace"]
    for case in asked:
        assert (case.attention.kernel("sam"), case.attention.kernel("clip"), case.dtype, case.decode_steps) == ("sdpa", "eager", "fp32", 2)
        assert [(workload.columns, workload.rows) for workload in case.workloads] == [(2, 1)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--level", "tower"], "--level: 'tower' is not one of layer, module, stage, total"),
        (["--what", "seconds"], "--what: 'seconds' is not one of flops"),
        (["--stage", "training"], "--stage: 'training'"),
        (["--module", "sam.nose"], "--module: 'sam.nose' is not one of 19 names; nearest: sam.neck"),
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


def test_the_command_without_a_working_torch_is_one_line(monkeypatch, capsys):
    def failing(*arguments, **options):
        raise of.SpecError("No module named 'torch' (install it)")
        yield

    monkeypatch.setattr(verify, "run_cases", failing)
    assert cli.main(["verify", "--quick"]) == 2
    assert capsys.readouterr().err == "ocr-flops verify: No module named 'torch' (install it)\n"


@pytest.fixture
def audited(monkeypatch):
    """An audit that is already there, with changes to its first demonstration."""

    def install(**changes):
        changed = counter_audit.read_audit()
        changed["cases"][0] |= changes
        monkeypatch.setattr(counter_audit, "audit_counter", lambda python: changed)

    return install


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_an_audit_shows_every_demonstration(audited, capsys, output):
    audited()
    assert cli.main(["verify", "--audit", "model=tiny_test", "workload.columns=2", "workload.rows=1", "--format", output]) == 0
    text = capsys.readouterr().out
    if output == "json":
        data = json.loads(text)
        assert len(data["cases"]) == 25 and {row["group"] for row in data["hidden"]} == set(counter_audit.GROUPS)
    elif output == "csv":
        assert len(text.splitlines()) == 26 and text.startswith("case,call,device,tensor_flops,")
    else:
        assert text.startswith("Of this model's FLOPs torch's counter reports") and "missed: scaled_dot_product_attention (cpu)" in text


def test_an_audit_fails_where_a_demonstration_could_not_run(audited, capsys):
    audited(verdict="could not run: no kernel", counted_flops=None)
    assert cli.main(["verify", "--audit", "model=tiny_test"]) == 1
    assert "linear: could not run: no kernel" in capsys.readouterr().out
