"""The audit: demonstrations that really run, verdicts that can fail, and shares that add up to the model's FLOPs."""

import dataclasses
import json
import re
from dataclasses import asdict

import polars as pl
import pytest
import torch

import ocr_flops as of
from ocr_flops.evidence.verify import counter_audit, op_kinds
from ocr_flops.measure.events import read_event, write_event
from ocr_flops.measure.protocol import Point, Request
from ocr_flops.measure.worker import counter_audit as counted
from ocr_flops.measure.worker import counter_cases

POINT = of.Workload(256, 128, 2, 1, output_tokens=1)


@pytest.fixture(scope="module")
def ran():
    """All demonstrations, run here."""
    return asdict(counted.audit_counter()) | {"date": "2026-01-01"}


@pytest.fixture(scope="module")
def estimated(tiny):
    return counter_audit.estimate_audited(tiny, POINT)


def case(name):
    return next(found for found in counter_cases.CASES if found.name == name)


def audited(*changed):
    """What the audit says of demonstrations."""
    return counted.audit_counter(changed).cases


def test_every_demonstration_runs_or_says_what_is_missing(ran):
    assert counter_audit.list_failures(ran) == []
    assert len(ran["cases"]) == len({found["name"] for found in ran["cases"]}) == 25
    for found in ran["cases"]:
        assert found["why"]
        assert (found["verdict"] == "not here") == (found["counted_flops"] is None)
        assert bool(found["operators"]) == (found["verdict"] != "not here")
        assert (found["verdict"] in ("counted", "partly")) == bool(found["known"]) or found["verdict"] == "nothing to count"


def test_matrix_products_that_torch_knows_are_counted_whole(ran):
    counted = {found["name"] for found in ran["cases"] if found["verdict"] == "counted"}
    assert counted == {"linear", "matmul", "conv2d", "batched_mm"}


def test_what_the_counter_of_this_torch_misses(ran):
    """Facts of torch 2.13: a version that counts more makes this fail, and then the texts that say otherwise are to be changed."""
    if not torch.__version__.startswith("2.13"):
        pytest.skip(f"known for torch 2.13, this is {torch.__version__}")
    verdicts = {found["name"]: found["verdict"] for found in ran["cases"]}
    seen = {name: found["counted_flops"] for name, found in ((found["name"], found) for found in ran["cases"])}
    for name in [
        "sdpa_cpu",
        "sdpa_bias_cpu",
        "grouped_mm_cpu",
        "grouped_mm_meta",
        "softmax",
        "layer_norm",
        "rms_norm",
        "gelu",
        "silu",
        "rope",
    ]:
        assert (verdicts[name], seen[name]) == ("missed", 0)
    for name in ("sdpa_meta", "sdpa_bias_meta", "sdpa_math_cpu", "flash_operator", "efficient_operator"):
        assert (verdicts[name], seen[name]) == ("partly", counter_cases.CORE)
    assert verdicts["embedding"] == "nothing to count"


def test_a_wrong_closed_form_is_no_agreement():
    right = case("linear")
    half = dataclasses.replace(right, tensor_flops=right.tensor_flops // 2)
    more = dataclasses.replace(right, tensor_flops=right.tensor_flops + 2)
    (too_much, too_little) = audited(half, more)
    assert (too_much["verdict"], too_little["verdict"]) == ("differs", "partly")
    assert counter_audit.list_failures({"cases": [too_much]})[0].startswith("linear: differs")


def test_what_cannot_run_is_named_and_fails():
    def broken(*inputs):
        raise RuntimeError("no kernel for this\nand more")

    (found,) = audited(dataclasses.replace(case("softmax"), run=broken))
    assert (found["verdict"], found["counted_flops"]) == ("could not run: no kernel for this", None)
    assert counter_audit.list_failures({"cases": [found]}) == ["softmax: could not run: no kernel for this"]


def test_a_missing_package_is_named_not_passed():
    (found,) = audited(dataclasses.replace(case("softmax"), needs="no_such_package_anywhere"))
    assert (found["verdict"], found["why"]) == ("not here", "the package no_such_package_anywhere is not installed")


def test_families_hold_every_flop_of_every_stage_once(model):
    for spec_workload in (of.Workload.from_grid(2, 3), of.Workload(512, output_tokens=7)):
        estimated = counter_audit.estimate_audited(model, spec_workload, prefill_logits="all")
        families = op_kinds.family_flops(estimated)
        for stage, row in estimated.stage_numbers.items():
            of_stage = families.filter(stage=stage)
            assert of_stage["tensor_flops"].sum() == row["tensor_flops"]
            assert of_stage["vector_flops"].sum() == row["vector_flops"]
            assert of_stage["share"].sum() == pytest.approx(1)


def test_families_agree_with_closed_forms(model):
    """Prefill of 493 tokens: experts are 39 % of its matrix FLOPs, norms and rotation cost what the demonstrations' formulas say."""
    whole = counter_audit.estimate_audited(model, of.Workload.from_grid(2, 1), prefill_logits="all")
    flops = {row["family"]: row for row in op_kinds.family_flops(whole).filter(stage="prefill").iter_rows(named=True)}
    tokens, width, layers = 493, 1280, 12
    assert flops["routed experts"]["tensor_flops"] == 11 * 6 * 2 * 3 * width * 896 * tokens
    assert flops["routed experts"]["tensor_flops"] / 580_990_955_520 == pytest.approx(0.39, abs=0.005)
    assert flops["RMSNorm"]["vector_flops"] == (2 * layers + 1) * (4 * width + 2) * tokens
    assert flops["attention"]["tensor_flops"] == layers * 4 * width * tokens**2
    assert flops["attention"]["vector_flops"] == layers * 6 * 10 * tokens**2
    angles = 64 * tokens + 4 * 128 * tokens  # positions times frequencies; cosine, sine and their scaling, once for all layers
    assert flops["rotary positions"]["vector_flops"] == layers * 2 * 7 * width * tokens // 2 + angles
    assert flops["SiLU"]["vector_flops"] == 4 * tokens * (6848 + 11 * (6 * 896 + 1792))


@pytest.fixture(scope="module")
def plainly():
    """Counts the tiny model as a user would who knows of no trap: nothing is rerouted, experts are grouped."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import DynamicCache
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    from ocr_flops.measure.plan import build_request
    from ocr_flops.measure.worker import inputs
    from ocr_flops.measure.worker.transformers_engine import build_model, meta_shims

    def count(spec, device, experts):
        request = build_request(spec, [], attention="sdpa")
        net = build_model(request, device, experts)
        point = Point(256, 128, 2, 1, 10, 1, 1)
        found = {}
        with torch.no_grad(), meta_shims(device):
            views = inputs.views(point, request, device)
            with FlopCounterMode(display=False) as counter:
                features = net.model.get_image_features(**views, return_dict=True).pooler_output
            found["vision"] = counter.get_total_flops()
            ids = inputs.token_ids(point, net.config.image_token_id, device)
            cache = DynamicCache(config=net.config.text_config)
            encoded = {"image": BaseModelOutputWithPooling(pooler_output=features)}
            with FlopCounterMode(display=False) as counter:
                net(input_ids=ids, mm_encoder_outputs=encoded, past_key_values=cache, use_cache=True, logits_to_keep=1)
            found["prefill"] = counter.get_total_flops()
            with FlopCounterMode(display=False) as counter:
                net(input_ids=torch.full((1, 1), 3, device=device), past_key_values=cache, use_cache=True, logits_to_keep=1)
            found["decode"] = counter.get_total_flops()
        return found

    return count


@pytest.mark.parametrize(
    ("setting", "device", "experts"), [("CPU, as it comes", "cpu", "grouped_mm"), ("meta, batched experts (verify)", "meta", "batched_mm")]
)
def test_what_is_said_to_be_counted_is_what_the_counter_reports_of_the_model(tiny, ran, estimated, plainly, setting, device, experts):
    hidden = counter_audit.hidden_frame(ran, estimated).filter((pl.col("setting") == setting) & (pl.col("group") == "counted"))
    said = {row["stage"]: row["flops"] for row in hidden.iter_rows(named=True) if row["stage"] != op_kinds.WHOLE}
    assert plainly(tiny, device, experts) == said


def test_hidden_shares_add_up_and_name_experts_and_attention(ran, estimated):
    hidden = counter_audit.hidden_frame(ran, estimated)
    assert tuple(hidden["setting"].unique(maintain_order=True)) == tuple(counter_audit.SETTINGS)
    for (_, stage), rows in hidden.group_by("setting", "stage"):
        numbers = estimated.stage_numbers
        whole = sum(row["total_flops"] for row in numbers.values()) if stage == op_kinds.WHOLE else numbers[stage]["total_flops"]
        assert rows["flops"].sum() == whole
        assert rows["share"].sum() == pytest.approx(1)


def test_a_setting_whose_demonstrations_did_not_run_is_left_out(ran, estimated):
    changed = json.loads(json.dumps(ran))
    next(found for found in changed["cases"] if found["name"] == "sdpa_cpu")["counted_flops"] = None
    assert "CPU, as it comes" not in counter_audit.hidden_frame(changed, estimated)["setting"].to_list()


def test_the_frame_weighs_every_demonstration_by_the_model(ran, estimated):
    frame = counter_audit.audit_frame(ran, estimated)
    rows = {row["case"]: row for row in frame.iter_rows(named=True)}
    assert list(rows) == [found["name"] for found in ran["cases"]]
    assert rows["grouped_mm_cpu"]["hidden_share"] == rows["grouped_mm_cpu"]["share"] > 0
    assert rows["batched_mm"]["hidden_share"] == 0 < rows["batched_mm"]["share"]
    assert 0 < rows["sdpa_math_cpu"]["hidden_share"] < rows["sdpa_cpu"]["hidden_share"] == rows["sdpa_cpu"]["share"]
    assert rows["flash_attn"]["hidden_share"] is None or rows["flash_attn"]["verdict"] != "not here"
    assert rows["embedding"]["share"] == 0
    assert rows["grouped_mm_cpu"]["vision_share"] == 0 < rows["grouped_mm_cpu"]["prefill_share"]


def test_stages_can_be_left_out(tiny, ran):
    frame = counter_audit.audit_frame(ran, counter_audit.estimate_audited(tiny, POINT, ("vision",)))
    assert "vision_share" in frame.columns and "prefill_share" not in frame.columns


def test_the_record_that_is_shipped(model):
    kept = counter_audit.read_audit()
    assert counter_audit.list_failures(kept) == []
    assert {found["name"] for found in kept["cases"]} == set(counter_audit.COVERS)
    assert kept["ran"]["torch"].startswith("2.13") and kept["date"]
    assert "76.0 %" in counter_audit.describe_audit(kept, counter_audit.estimate_audited(model, of.Workload.from_grid(2, 3)))


def test_a_record_is_read_back_and_keeps_no_failure(ran, tmp_path):
    counter_audit.write_audit(ran, tmp_path / "kept.json")
    assert counter_audit.read_audit(tmp_path / "kept.json")["cases"] == ran["cases"]
    bad = {**ran, "cases": [{**ran["cases"][0], "verdict": "could not run: x"}]}
    with pytest.raises(of.SpecError, match="^--record: linear: could not run: x"):
        counter_audit.write_audit(bad, tmp_path / "kept.json")


def test_the_verdicts_add_up(ran, estimated):
    for message in (
        ran,
        counter_audit.read_audit(),
        {**ran, "cases": [{**ran["cases"][0], "verdict": "could not run: x"}, *ran["cases"][1:]]},
    ):
        (line,) = [line for line in counter_audit.describe_audit(message, estimated).splitlines() if " demonstrations on " in line]
        counts = [int(number) for number in re.findall(r"(\d+) (?:counted|partly|missed|nothing to count|not here|failed)", line)]
        assert sum(counts) == len(message["cases"]) == 25


def test_the_worker_serves_an_audit():
    from ocr_flops.measure.__main__ import serve

    events = []
    serve(Request({}, [], kind="audit"), events.append)
    (audit,) = events
    assert len(audit.cases) == 25
    assert read_event(write_event(audit)) == audit
