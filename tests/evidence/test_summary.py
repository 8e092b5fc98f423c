"""The summary of a verification: what a report says, and what is kept as evidence."""

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.cost.run_config import RunConfig
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
    assert summary.count_points(frame) == 1
    assert summary.describe_differences(frame) == []
    place = (pl.col("module") == "clip.mlp") & (pl.col("layer") == 1) & (pl.col("column") == "torch_flops")
    broken = frame.with_columns(
        measured=pl.when(place).then(7).otherwise("measured"), difference=pl.when(place).then(-5).otherwise("difference")
    )
    (line,) = summary.describe_differences(broken)
    assert line.startswith("differs: vision clip.mlp layer 1 torch_flops: measured 7, analytic ")
    assert line.endswith(
        ", difference -5 (count sdpa all logits bf16, 256 px view, 2 x 1 grid of 128 px, 10 prompt + 3 output tokens, batch 1)"
    )
    assert summary.shown_frame(broken).filter(pl.col("difference") != 0)["layer"].to_list() == [1]
    assert summary.summarise(broken).filter(pl.col("largest_difference") != 0)["largest_difference"].to_list() == [5]


def test_a_record_is_read_back(tiny, result, tmp_path):
    frame = compared(tiny, result)
    code = tmp_path / "code"
    code.mkdir()
    (code / "modeling.py").write_text("pass")
    summary.write_verification(frame, result.ran, tiny, str(code), tmp_path / "kept.json")
    kept = summary.read_verification(path=tmp_path / "kept.json")
    assert kept["code"] == {"modeling.py": "d74ff0ee8da3b9806b18c877dbf29bbde50b5bd8e4dad7a3a725000feb82e8f1"}
    (setting,) = kept["settings"]
    assert [setting[name] for name in summary.SETTING] == ["transformers", "sdpa", "bf16", "dynamic", "all"]
    assert (setting["numbers"], setting["different"], setting["points"], setting["largest_grid"]) == (frame.height, 0, 1, [2, 1])
    assert sum(sum(numbers) for numbers in setting["levels"].values()) == frame.height
    assert (kept["numbers"], len(kept["rows"])) == (frame.height, summary.summarise(frame).height)
    assert sum(row["points"] for row in kept["rows"]) == frame.height
    assert {row["level"] for row in kept["rows"]} == set(verify.LEVELS)
    assert kept["versions"]["torch"] == result.ran["torch"]
    assert all(row["largest_difference"] == 0 for row in kept["rows"])


@pytest.mark.parametrize(("engine", "attention"), [("transformers", {"eager", "sdpa"}), ("remote_code", {"vendor"})])
def test_the_evidence_that_is_shipped_has_no_difference(engine, attention):
    kept = summary.read_verification(engine)
    assert kept["versions"]["device"] == "meta" and ("code" in kept) == (engine == "remote_code")
    assert {row["kind"] for row in kept["rows"]} == {"count", "trace"}
    assert {row["attention"] for row in kept["rows"]} == {row["attention"] for row in kept["settings"]} == attention
    assert {row["dtype"] for row in kept["settings"]} == {"bf16", "fp16", "fp32"}
    assert sum(row["numbers"] for row in kept["settings"]) == kept["numbers"] and not any(row["different"] for row in kept["settings"])
    assert {row["level"] for row in kept["rows"]} == set(verify.LEVELS)
    assert all(row["measured"] == row["analytic"] and row["largest_difference"] == 0 for row in kept["rows"])
    assert {row["column"] for row in kept["rows"]} == {column for columns in verify.WHAT.values() for column in columns}


def test_evidence_is_not_written_into_an_installed_package(tiny, result, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PACKAGE", tmp_path / "ocr_flops")
    with pytest.raises(of.SpecError, match="^--record: .*/verification.json is in an installed package"):
        summary.write_verification(compared(tiny, result), result.ran, tiny, path=tmp_path / "ocr_flops" / "verification.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("choice", "compared"),
    [
        ({"attention": "eager"}, True),
        ({"attention": "vendor", "dtype": "fp16"}, True),  # which is sdpa
        ({"attention": "sdpa", "cache": "static"}, False),
        ({"attention": "flash"}, False),
        ({"engine": "remote_code", "attention": "vendor"}, True),
        ({"engine": "remote_code", "attention": "eager"}, False),
        ({"engine": "remote_code", "attention": "vendor", "prefill_logits": "last"}, False),
    ],
)
def test_only_the_setting_that_was_compared_counts(model, tiny, choice, compared):
    estimate = of.estimate(model, of.Workload.from_grid(2, 1), **choice)
    found, words = summary.find_compared(estimate.config), summary.describe_compared(estimate.config)
    assert (found is not None) == compared == ("all equal, as integers" in words)
    assert compared or words.startswith("not compared")
    assert summary.find_compared(of.estimate(tiny, of.Workload(64), **choice).config) is None  # other dimensions


def test_of_a_learned_model_the_traces_that_it_was_learned_from_are_named():
    config = RunConfig.resolve(of.load_model("glm_ocr"), "sdpa", "transformers", "bf16", "dynamic", None)
    assert summary.describe_compared(config).startswith("learned from traces under transformers ")
