"""How results of the worker become rows, and how a server keeps them; the worker itself is not run here."""

import io
import threading
from dataclasses import replace

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.app import spot_checks
from ocr_flops.app.setting import Setting
from ocr_flops.app.spot_checks import Store
from ocr_flops.measure.plan import build_request
from ocr_flops.spec.tiling import rule_grids
from tests.support.results import result

MODEL = of.load_model("deepseek_ocr")


@pytest.fixture
def message():
    return result(Setting())


def test_a_point_or_all_grids_are_run():
    scenario = Setting(prompt_tokens=33)
    assert spot_checks.select_points(scenario, "current point") == [scenario.workload]
    grids = spot_checks.select_points(scenario, "all grids of the tile rule")
    assert len(grids) == 23 and all(point.is_single and point.prompt_tokens == 33 for point in grids)
    assert build_request(MODEL, grids).to_json()
    beyond = Setting(source="grid", columns=20, rows=25)
    points = [(point.columns, point.rows) for point in spot_checks.select_points(beyond, "all grids of the tile rule")]
    assert points == [(1, 1), *rule_grids(), (20, 25)]  # none of the grids that charts draw in between
    assert len(spot_checks.select_points(Setting(mode="tiny"), "all grids of the tile rule")) == 4


def test_a_result_is_one_of_a_kind(message):
    assert spot_checks.result_key(message) == spot_checks.result_key(result(Setting(output_tokens=9)))
    others = [
        result(Setting(batch_size=2)),
        result(Setting(), label="another"),
        result(Setting(), prefill_logits="all"),
        result(Setting(), dtype="fp16"),
    ]
    others += [result(Setting(), attention={"sam": "sdpa", "clip": "eager", "decoder": "eager"}), result(Setting(), kind="trace")]
    others += [result(Setting(), device_name="NVIDIA L4"), result(Setting(), torch="2.6.0")]
    assert len({spot_checks.result_key(one) for one in (message, *others)}) == 9


def test_equal_counts_are_said_to_be_equal(message):
    frame = spot_checks.build_frame(MODEL, message)
    assert spot_checks.verdict(frame).startswith("All ") and frame["difference"].to_list() == [0] * frame.height
    assert frame["point"][0] == "2 × 3 tiles, 913 tokens, batch 1"


def test_a_row_says_what_ran_where_and_when(message):
    modes = {"sam": "sdpa", "clip": "eager", "decoder": "eager"}
    told = {
        "device_name": "NVIDIA L4",
        "torch": "2.6.0",
        "transformers": "5.20.1",
        "ocr_flops": "0.1.0",
        "python": "3.12.1",
        "platform": "Linux",
    }
    timed = {"finished": "2026-01-02T03:04:05.678+00:00", "seconds": {"torch": 2.0, "vision": 0.25, "prefill": 0.5, "decode": 0.125}}
    full = spot_checks.build_frame(MODEL, result(Setting(), attention=modes, device="cuda", **told, **timed))
    row = full.filter(stage="prefill").row(0, named=True)
    assert (row["device"], row["seconds"], row["measured_at"]) == ("NVIDIA L4", 0.5, timed["finished"])
    assert row["versions"] == "ocr_flops 0.1.0, torch 2.6.0, transformers 5.20.1"
    assert (row["attention"], row["kind"], row["model"]) == ("sam sdpa, clip eager, decoder eager", "count", "deepseek_ocr")
    assert (row["python"], row["platform"]) == ("3.12.1", "Linux")
    bare = spot_checks.build_frame(MODEL, message)
    assert bare.schema == full.schema and pl.concat([bare, full]).height == 2 * bare.height
    row = bare.row(0, named=True)
    assert (row["device"], row["attention"]) == ("meta", "eager")
    assert [row[name] for name in ("seconds", "measured_at", "versions", "python", "platform")] == [None] * 5


def test_a_difference_is_said_to_be_one():
    frame = spot_checks.build_frame(MODEL, result(Setting(), off=1))
    assert "differ" in spot_checks.verdict(frame) and "All" not in spot_checks.verdict(frame)


def by_stage(rows, flag):
    return {stage: {row[flag] for row in rows if row["stage"] == stage} for stage in dict.fromkeys(row["stage"] for row in rows)}


@pytest.mark.parametrize(
    ("shown", "matches", "on_curve"),
    [
        ({}, {"vision": {True}, "prefill": {True}}, {"vision": {True}, "prefill": {True}}),
        ({"attention": "flash"}, {"vision": {True}, "prefill": {True}}, {"vision": {True}, "prefill": {True}}),
        ({"prompt_tokens": 99}, {"vision": {True}, "prefill": {False}}, {"vision": {True}, "prefill": {False}}),
        ({"source": "grid", "columns": 9, "rows": 1}, {"vision": {False}, "prefill": {False}}, {"vision": {True}, "prefill": {True}}),
        ({"mode": "base"}, {"vision": {False}, "prefill": {False}}, {"vision": {False}, "prefill": {False}}),
        ({"batch_size": 2}, {"vision": {False}, "prefill": {False}}, {"vision": {False}, "prefill": {False}}),
        ({"engine": "remote_code"}, {"vision": {False}, "prefill": {False}}, {"vision": {False}, "prefill": {False}}),
    ],
)
def test_a_measured_point_stays_and_says_whether_it_is_what_is_shown(message, shown, matches, on_curve):
    rows = spot_checks.rows_beside([spot_checks.build_frame(MODEL, message)], Setting(**shown))
    assert by_stage(rows, "matches") == matches
    assert by_stage(rows, "on_curve") == on_curve


def test_decode_steps_are_only_laid_beside_as_many_tokens(message):
    frame = spot_checks.build_frame(MODEL, message)
    assert "decode" not in by_stage(spot_checks.rows_beside([frame], Setting(output_tokens=256)), "matches")
    assert by_stage(spot_checks.rows_beside([frame], Setting(output_tokens=3)), "matches")["decode"] == {True}


RAN = {
    "device_name": "NVIDIA L4",
    "torch": "2.6.0",
    "transformers": "5.20",
    "ocr_flops": "0.1.0",
    "finished": "2026-01-02T03:04:05.678+00:00",
}


@pytest.fixture
def store(model):
    """A store with two results."""
    made = Store()
    made.add(model, result(Setting(), **RAN))
    made.add(model, result(Setting(batch_size=2)))
    return made


def test_a_later_result_takes_the_place_of_one_of_its_kind(model, store):
    later = RAN | {"finished": "2026-01-02T04:00:00.000+00:00"}
    store.add(model, result(Setting(), **later))
    assert [frame["measured_at"][0] for frame in store.frames()] == [None, later["finished"]]
    for other in ({"torch": "2.7.0"}, {"device_name": "NVIDIA H200"}, {"kind": "trace"}):
        store.add(model, result(Setting(), **later | other))
    assert len(store.frames()) == 5


def test_other_dimensions_are_other_results(model, store):
    other = replace(model, name="another")
    store.add(other, result(Setting(), **RAN))
    assert [frame["model"][0] for frame in store.frames()] == ["deepseek_ocr", "deepseek_ocr", "another"]


def test_the_table_has_all_results_and_exact_integers(store):
    table = store.table()
    assert table.height == sum(frame.height for frame in store.frames()) and table["batch_size"].to_list()[0] == 2
    assert all(table[name].dtype == pl.Int64 for name in ("counted_flops", "analytic_flops", "difference"))
    back = pl.read_csv(io.StringIO(table.write_csv()))
    assert back["counted_flops"].to_list() == table["counted_flops"].to_list()
    shown = table.filter(batch_size=1).row(0, named=True)
    assert (shown["device"], shown["versions"]) == ("NVIDIA L4", "ocr_flops 0.1.0, torch 2.6.0, transformers 5.20")


def test_a_store_is_bounded_and_can_be_cleared(model):
    store = Store(most=3)
    for batch in range(1, 6):
        store.add(model, result(Setting(batch_size=batch)))
    assert [frame["batch_size"][0] for frame in store.frames()] == [3, 4, 5]
    store.clear()
    assert store.frames() == () and store.table().is_empty()


def test_threads_share_a_store(model):
    store, problems = Store(most=4), []

    def work(batch):
        try:
            for _ in range(5):
                store.add(model, result(Setting(batch_size=batch)))
                store.table()
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(batch,)) for batch in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and len(store.frames()) == 4
