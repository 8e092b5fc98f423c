"""The host's lane: the class at tiny widths issues the operators of the real one, and what is timed adds up."""

import pytest

import ocr_flops as of
from ocr_flops.measure.events import Result
from ocr_flops.measure.plan import HOST_WORKLOAD, ModelSource, host_request, shrink_model
from ocr_flops.measure.protocol import Request
from ocr_flops.spec.run_spec import load_run
from tests.support.remote_snapshot import make
from tests.support.timed import Inside

STEPS = HOST_WORKLOAD.output_tokens


def measured(*overrides, source=None, **settings):
    run = load_run(["model=tiny_test", *overrides])
    request = host_request(run, source or ModelSource(run.engine.name), **{"runs": 2, "warmup": 1} | settings)
    (result,) = (event for event in Inside(request) if isinstance(event, Result))
    return result


def expected_operators(model, engine="transformers"):
    """Operators of one pass by stage and module."""
    numbers = of.estimate(shrink_model(model), HOST_WORKLOAD, "vendor", engine=engine, dtype="fp32")
    return {place: row["operators"] / (STEPS if place[0] == "decode" else 1) for place, row in numbers.module_numbers.items()}


@pytest.mark.parametrize("name", ["tiny_test", "deepseek_ocr"])
def test_a_shrunken_model_issues_the_operators_of_the_real_one(name):
    """At the view that vision was trained for, in every module."""
    model = of.load_model(name)
    real = of.Workload(model.tower("sam").image_px, prompt_tokens=13, output_tokens=STEPS)
    numbers = of.estimate(model, real, "vendor", dtype="fp32")
    found = {place: row["operators"] / (STEPS if place[0] == "decode" else 1) for place, row in numbers.module_numbers.items()}
    if name == "deepseek_ocr":
        assert found == expected_operators(model)
    else:  # its windows need other padding
        assert {place: one for place, one in found.items() if "sam" not in place[1]}.items() <= expected_operators(model).items()


def test_operators_are_the_analytic_ones_and_times_add_up(tiny):
    result, expected = measured(), expected_operators(tiny)
    assert set(result.stages) == {"vision", "prefill", "decode"} and result.ran["dtype"] == "fp32" and result.ran["threads"] == 1
    for stage, seen in result.stages.items():
        assert seen["passes"] == 2 * (STEPS if stage == "decode" else 1)
        assert {(stage, module): one["operators"] for module, one in seen["modules"].items() if one["operators"]} == {
            place: operators for place, operators in expected.items() if place[0] == stage and operators
        }
        for name in ("seconds", "operators", "module_calls"):
            assert sum(one[name] for one in seen["modules"].values()) == pytest.approx(seen[name])
        assert 0 < seen["seconds"] <= seen["median_seconds"] <= seen["wall_seconds"] * 1.1
    decoder = tiny.tower("decoder")
    calls = {module: one["module_calls"] for module, one in result.stages["decode"]["modules"].items()}
    assert calls["decoder.attention"] == 4 * decoder.layers and calls["decoder.norm_residual"] == 2 * decoder.layers + 1
    assert calls["lm_head"] == 1 and calls["decoder.dense_mlp"] == 3 * decoder.dense_layers


def test_the_published_code(tiny, tmp_path):
    source = ModelSource("remote_code", make(tiny, tmp_path / "snapshot"), True)
    result, expected = measured("engine=remote_code", source=source), expected_operators(tiny, "remote_code")
    assert set(result.stages) == {"prefill", "decode"}
    for stage, seen in result.stages.items():
        for module, one in seen["modules"].items():
            if module != "decoder.routed_experts" and one["operators"]:  # whose loop runs over the experts hit
                assert one["operators"] == pytest.approx(expected[stage, module])
    assert result.stages["decode"]["modules"]["decoder.routed_experts"]["module_calls"] > 0


def test_what_cannot_be_measured():
    run = load_run(["engine=remote_code", "stages=[vision]"])
    with pytest.raises(of.SpecError, match=r"^stages: vision cannot be measured here"):
        host_request(run, ModelSource("remote_code", "x", True))
    assert "no part in the host's lane" in Request({}, [], kind="host", device="cuda").problem()
