"""What was measured stays for all sessions, within bounds, with exact integers."""

import io
import threading
from dataclasses import replace

import polars as pl
import pytest

from ocr_flops.app.setting import Setting
from ocr_flops.app.store import STORE, Store
from tests.support.results import result

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


def test_it_is_bounded_and_can_be_cleared(model):
    store = Store(most=3)
    for batch in range(1, 6):
        store.add(model, result(Setting(batch_size=batch)))
    assert [frame["batch_size"][0] for frame in store.frames()] == [3, 4, 5]
    store.clear()
    assert store.frames() == () and store.table().is_empty()


def test_threads_share_it(model):
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


def test_there_is_one_for_the_server():
    from ocr_flops.app import store

    assert store.STORE is STORE and STORE.frames() == ()
