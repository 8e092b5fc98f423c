"""Differences by layer, module, stage and end to end: what is compared at each level, and that one wrong number shows where it is."""

import copy

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.evidence import verify
from ocr_flops.evidence.verify.compare import KV, PARAMETERS, PEAK, WEIGHTS, WORK, estimate_result
from ocr_flops.measure.plan import build_request

POINT = of.Workload(256, 128, 2, 1, batch_size=2, output_tokens=2)


@pytest.fixture(scope="module")
def results(tiny, serve):
    """The tiny model counted and traced."""
    return {kind: serve(build_request(tiny, [POINT], device="meta", kind=kind))[0] for kind in ("count", "trace")}


def wrong(spec, message, **choice):
    return verify.compare_numbers(spec, message, **choice).filter(pl.col("difference") != 0)


@pytest.mark.parametrize("kind", ["count", "trace"])
def test_every_level_compares_its_columns_and_all_are_equal(tiny, results, kind):
    frame = verify.compare_numbers(tiny, results[kind])
    assert frame["difference"].to_list() == [0] * frame.height
    work = set(WORK[kind])
    weights = {WEIGHTS} if kind == "trace" else set()
    columns = {level: set(rows["column"]) for (level,), rows in frame.group_by("level")}
    assert columns == {
        "layer": work | {KV, PARAMETERS},
        "module": work | {KV, PARAMETERS},
        "stage": work | {KV} | weights,
        "total": work | {KV, PARAMETERS},
    }


@pytest.mark.parametrize("kind", ["count", "trace"])
def test_flops_have_a_total_for_every_stage(tiny, results, kind):
    message = results[kind]
    frame = verify.compare_flops(tiny, message)
    for stage, seen in message.stages.items():
        of_stage = frame.filter(stage=stage)
        assert of_stage["module"].to_list()[-1] == "total"
        assert of_stage["counted_flops"][-1] == of_stage["counted_flops"][:-1].sum() == seen["flops"]
        assert of_stage["analytic_flops"][-1] == of_stage["analytic_flops"][:-1].sum()
    assert (frame["difference"] == 0).all()


def test_a_result_is_compared_with_what_ran(tiny, serve):
    request = build_request(tiny, [of.Workload(64, output_tokens=9)], device="meta", attention="sdpa", prefill_logits="all")
    numbers = estimate_result(tiny, serve(request)[0])
    assert (numbers.config.attention.kernel("sam"), numbers.config.attention.name, numbers.config.prefill_logits) == ("sdpa", "sdpa", "all")
    assert numbers.workload.output_tokens == 3  # steps that ran


def test_every_layer_of_every_tower_is_compared(tiny, results):
    frame = verify.compare_numbers(tiny, results["trace"], levels=("layer",), what=("flops",))
    found = {tuple(row) for row in frame.select("stage", "module", "layer").iter_rows()}
    for module, stage, layers in (
        ("sam.attention_windowed", "vision", [0, 2]),
        ("sam.attention_global", "vision", [1]),
        ("sam.mlp", "vision", [0, 1, 2]),
        ("clip.attention", "vision", [0, 1]),
        ("decoder.attention", "prefill", [None, 0, 1, 2]),  # None: the masks and angles made once
        ("decoder.dense_mlp", "decode", [0]),
        ("decoder.routed_experts", "decode", [1, 2]),
        ("projector", "vision", [None]),
    ):
        assert {layer for of_stage, name, layer in found if (of_stage, name) == (stage, module)} == set(layers)


@pytest.mark.parametrize("kind", ["count", "trace"])
def test_layers_add_up_to_modules_modules_to_stages_and_stages_to_the_total(tiny, results, kind):
    frame = verify.compare_numbers(tiny, results[kind], what=("flops", "operators", "traffic"))
    for side in ("measured", "analytic"):
        sums = {}
        for (level, stage, column), rows in frame.filter(pl.col("level") != "total").group_by("level", "stage", "column"):
            sums.setdefault((stage, column), {})[level] = rows[side].sum()
        assert all(len(set(levels.values())) == 1 for levels in sums.values())
        for (column,), rows in frame.filter(pl.col("level") == "total").group_by("column"):
            assert rows[side].sum() == sum(levels["stage"] for (_, of), levels in sums.items() if of == column)


def test_peaks_are_the_largest_of_the_level_below(tiny, results):
    frame = verify.compare_numbers(tiny, results["trace"], what=("peak",))
    assert frame.group_by("level").agg(pl.col("measured").max())["measured"].n_unique() == 1


def test_only_what_is_wanted_is_compared(tiny, results):
    frame = verify.compare_numbers(tiny, results["trace"], levels=("stage",), what=("traffic", "peak"))
    assert set(frame["level"]) == {"stage"} and set(frame["column"]) == {*verify.WHAT["traffic"], PEAK}
    assert verify.compare_numbers(tiny, results["count"], what=("traffic",)).is_empty()  # which the command refuses


def test_a_wrong_count_is_a_difference_where_it_is(tiny, results):
    message = copy.deepcopy(results["count"])
    message.stages["vision"]["layers"]["clip.mlp/1"] += 2
    message.stages["prefill"]["modules"]["lm_head"] += 1
    message.ran["parameters"] += 1
    found = [(row["level"], row["stage"], row["module"], row["layer"], row["difference"]) for row in wrong(tiny, message).to_dicts()]
    assert found == [("layer", "vision", "clip.mlp", 1, 2), ("module", "prefill", "lm_head", None, 1), ("total", "total", "total", None, 1)]


@pytest.mark.parametrize("column", WORK["trace"][1:])
def test_a_wrong_traced_layer_or_module_is_a_difference(tiny, results, column):
    message = copy.deepcopy(results["trace"])
    message.stages["prefill"]["layer_trace"]["decoder.routed_experts/2"][column] += 1
    message.stages["prefill"]["trace"]["decoder.router"][column] += 1
    found = [(row["module"], row["layer"], row["column"]) for row in wrong(tiny, message, levels=("layer", "module")).to_dicts()]
    assert found == [("decoder.routed_experts", 2, column), ("decoder.router", None, column)]


def test_work_moved_from_one_layer_to_another_is_a_difference(tiny, results):
    """Sums per module cannot see it."""
    message = copy.deepcopy(results["trace"])
    rows = message.stages["vision"]["layer_trace"]
    rows["sam.mlp/0"]["tensor_flops"] -= 6
    rows["sam.mlp/2"]["tensor_flops"] += 6
    assert [(row["level"], row["layer"], row["difference"]) for row in wrong(tiny, message).to_dicts()] == [
        ("layer", 0, -6),
        ("layer", 2, 6),
    ]


def test_a_cache_that_is_too_large_is_a_difference(tiny, results):
    message = copy.deepcopy(results["count"])
    message.stages["decode"][KV][1] += 4
    found = {(row["level"], row["stage"], row["layer"], row["difference"]) for row in wrong(tiny, message).to_dicts()}
    assert found == {("layer", "decode", 1, 4), ("module", "decode", None, 4), ("stage", "decode", None, 4), ("total", "total", None, 4)}


def test_a_parameter_in_the_wrong_layer_is_a_difference(tiny, results):
    message = copy.deepcopy(results["count"])
    message.ran["layer_parameters"]["sam.mlp/0"] -= 1
    message.ran["layer_parameters"]["sam.mlp/1"] += 1
    found = [(row["level"], row["stage"], row["module"], row["layer"]) for row in wrong(tiny, message).to_dicts()]
    assert found == [("layer", "model", "sam.mlp", 0), ("layer", "model", "sam.mlp", 1)]


def test_a_stage_that_leaves_weights_unread_is_a_difference(tiny, results):
    message = copy.deepcopy(results["trace"])
    message.stages["prefill"][WEIGHTS] -= 2
    assert [(row["level"], row["stage"], row["column"]) for row in wrong(tiny, message).to_dicts()] == [("stage", "prefill", WEIGHTS)]


def test_experts_handed_over_incompletely_are_a_difference(tiny, results):
    """The trace hands a grouped kernel all experts; one expert less must not be taken for experts that were not hit."""
    message = copy.deepcopy(results["trace"])
    decoder = tiny.tower("decoder")
    expert = 3 * decoder.width * decoder.expert_width * 2
    for place in ("trace", "layer_trace"):
        rows = message.stages["prefill"][place]
        rows["decoder.routed_experts" if place == "trace" else "decoder.routed_experts/1"]["weight_io_bytes"] -= expert
    message.stages["prefill"]["experts"]["handed_bytes"] -= expert
    found = wrong(tiny, message)
    assert set(found["level"]) == set(verify.LEVELS) and set(found["difference"]) == {-expert}
