"""Points timed one after the other: whatever becomes of the worker, every point ends in a record."""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

import ocr_flops as of
from ocr_flops.evidence.records import recorder
from ocr_flops.measure import failures
from ocr_flops.measure.client import Worker
from tests.support.timed import POINT, TILED, AtOnce, Inside, plan


class Dying(AtOnce):
    """The first one dies after its first result, as one that the system kills; later ones live."""

    started = 0

    def __init__(self, *arguments):
        super().__init__(*arguments)
        type(self).started += 1

    def __iter__(self):
        for message in super().__iter__():
            yield message
            if message["event"] == "result" and type(self).started == 1:
                yield failures.of_exit(-signal.SIGKILL, "").as_message()
                return


def test_a_worker_that_dies_costs_one_point(monkeypatch):
    monkeypatch.setattr(recorder, "Worker", Dying)
    monkeypatch.setattr(Dying, "started", 0)
    points = [POINT, TILED, POINT]
    told = []
    made = list(recorder.measure(plan(passes=()), points, progress=lambda *step: told.append(step)))
    assert [record["state"] for record in made] == ["done", "failed", "done"]
    assert [record["workload"]["global_px"] for record in made] == [64, 128, 64]
    assert Dying.started == 2
    assert made[1]["failure"]["message"] == "the worker ended early (killed by signal 9)" and "memory" in made[1]["failure"]["advice"]
    assert made[1]["ran"]["device_name"] == made[0]["ran"]["device_name"]  # what it said before
    assert all(done < total for done, total, _ in told) and len({total for _, total, _ in told}) == 1


def script(tmp_path, text):
    """An interpreter that ignores its arguments."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


RUNS = """cat > /dev/null; echo '{"event": "ran", "ran": {"device_name": "x"}}'; """
RUNS += """echo '{"event": "progress", "done": 5, "total": 9, "text": "timed run 1 of 3", "stage": "timed", "point": 0}'; """


def test_a_process_killed_in_the_middle_of_a_run(tmp_path):
    """As by the system's out-of-memory killer; the next point gets a worker of its own."""
    python = script(tmp_path, f"echo x >> {tmp_path}/starts; {RUNS} kill -KILL $$")
    made = list(recorder.measure(plan(), [POINT, TILED], python=python))
    assert [record["failure"]["message"] for record in made] == ["the worker ended early (killed by signal 9)"] * 2
    assert all("ran out of memory" in record["failure"]["advice"] and record["ran"]["device_name"] == "x" for record in made)
    assert (tmp_path / "starts").read_text() == "x\n" * 2


def test_a_real_worker_killed(monkeypatch):
    class Killed(Worker):
        def __iter__(self):
            for message in super().__iter__():
                if message["event"] == "progress":
                    os.kill(self._process.pid, signal.SIGKILL)
                yield message

    monkeypatch.setattr(recorder, "Worker", Killed)
    (record,) = recorder.measure(plan(), [POINT])
    assert record["state"] == "failed" and record["failure"]["message"].startswith("the worker ended early (killed by signal 9)")


def test_a_worker_cancelled_from_elsewhere(tmp_path, monkeypatch):
    class Cancelled(Worker):
        def __iter__(self):
            for message in super().__iter__():
                if message["event"] == "progress":
                    threading.Timer(0.1, self.cancel).start()
                yield message

    monkeypatch.setattr(recorder, "Worker", Cancelled)
    (record,) = recorder.measure(plan(), [POINT], python=script(tmp_path, f"{RUNS} sleep 60"))
    assert record["state"] == "failed" and record["failure"]["message"] == "the worker ended early (killed by signal 9)"


def test_an_interpreter_without_torch(tmp_path):
    """A real one: Python without its packages."""
    root = Path(of.__file__).parent.parent
    made = list(recorder.measure(plan(), [POINT, TILED], python=script(tmp_path, f'PYTHONPATH={root} exec {sys.executable} -S "$@"')))
    assert [record["failure"]["message"] for record in made] == ["torch is not installed"] * 2
    assert "Install torch >= 2.6 and transformers" in made[0]["failure"]["advice"]


def test_a_worker_of_another_version_that_says_nothing(tmp_path):
    """Must not be started over and over."""
    python = script(tmp_path, """cat > /dev/null; echo '{"event": "done"}'""")
    made = list(recorder.measure(plan(), [POINT, TILED], python=python))
    assert ["without a word" in record["failure"]["message"] for record in made] == [True, True]


def test_what_keeps_the_worker_from_beginning_fails_all_points_at_once(tmp_path):
    python = script(tmp_path, f"""cat > /dev/null; echo x >> {tmp_path}/starts; echo "No module named 'torch'" >&2; exit 1""")
    made = list(recorder.measure(plan(), [POINT, TILED], python=python))
    assert [record["state"] for record in made] == ["failed", "failed"] and made[0]["ran"] is None
    assert all("Install torch" in record["failure"]["advice"] for record in made)
    assert (tmp_path / "starts").read_text() == "x\n"


def test_a_worker_that_takes_too_long(tmp_path):
    (record,) = recorder.measure(plan(), [POINT], python=script(tmp_path, "sleep 60"), timeout_seconds=0.2)
    assert record["failure"]["message"] == "ended after 0.2 s, the time-out" and "--timeout" in record["failure"]["advice"]


def test_the_time_out_is_of_each_point(tmp_path):
    """Told one after the other, three points take longer than one may."""
    ran = json.dumps({"event": "ran", "ran": {"device_name": "x"}})
    failed = json.dumps({"event": "failed", "message": "m", "advice": "a", "ran": {"device_name": "x"}})
    lines = f"cat > /dev/null; echo '{ran}'; " + f"sleep 1; echo '{failed}'; " * 3 + """echo '{"event": "done"}'"""
    made = list(recorder.measure(plan(), [POINT] * 3, python=script(tmp_path, lines), timeout_seconds=2.5))
    assert [record["failure"]["message"] for record in made] == ["m"] * 3


def test_leaving_early_ends_the_worker(monkeypatch):
    workers = []

    class Kept(AtOnce):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            workers.append(self)

    monkeypatch.setattr(recorder, "Worker", Kept)
    running = recorder.measure(plan(passes=()), [POINT, TILED])
    next(running)
    running.close()
    assert workers[0].is_cancelled


@pytest.mark.parametrize(
    ("overrides", "rest", "message"),
    [
        (["cache=static"], {}, "^cache: 'static' cannot be measured; choose dynamic"),
        (["hardware=h200"], {}, "^hardware: 'h200' has no part in a measurement"),
        ([], {"device": "meta"}, "^device: 'meta' is not one of auto, cpu, cuda"),
        ([], {"runs": 0}, "^runs: 0 is not a whole number"),
        ([], {"experts": "sum"}, "^experts: 'sum' is not one of"),
        (["engine=remote_code"], {}, "^snapshot: engine remote_code runs the vendor's code from a local folder"),
    ],
)
def test_a_plan_that_cannot_be(overrides, rest, message):
    with pytest.raises(of.SpecError, match=message):
        plan(*overrides, **rest)


def test_all_output_tokens_are_decoded():
    assert plan("workload.output_tokens=300").request([of.Workload(64, output_tokens=300)]).workloads[0]["output_tokens"] == 300


def test_device_facts_of_a_worker_that_cannot(tmp_path):
    with pytest.raises(of.SpecError, match="^the worker ended early \\(exit code 3\\)"):
        recorder.device_facts(plan(), script(tmp_path, "exit 3"))
    with pytest.raises(of.SpecError, match="^ended after 0.2 s, the time-out"):
        recorder.device_facts(plan(), script(tmp_path, "sleep 60"), timeout_seconds=0.2)


def test_no_output_tokens_cost_no_record(monkeypatch):
    monkeypatch.setattr(recorder, "Worker", Inside)
    (record,) = recorder.measure(plan(passes=("memory", "traffic")), [of.Workload(64, output_tokens=0)])
    assert record["state"] == "done" and record["derived"]["vision"]["io_bytes_source"] == "traced"
