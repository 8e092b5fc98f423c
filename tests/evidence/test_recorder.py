"""Points timed one after the other: whatever becomes of the worker, every point ends in a record."""

import os
import signal
import sys
from pathlib import Path

import pytest

import ocr_flops as of
from ocr_flops.evidence.records import recorder
from ocr_flops.measure import client, failures
from ocr_flops.measure.client import Worker
from ocr_flops.measure.events import Progress, Result
from tests.support.timed import POINT, TILED, AtOnce, Inside, plan
from tests.support.workers import DONE, FAILED, LONG, RAN, WAITING, script


class Dying(AtOnce):
    """The first one dies after its first result, as one that the system kills; later ones live."""

    started = 0

    def __init__(self, *arguments):
        super().__init__(*arguments)
        type(self).started += 1

    def __iter__(self):
        for event in super().__iter__():
            yield event
            if isinstance(event, Result) and type(self).started == 1:
                yield failures.of_exit(-signal.SIGKILL, "")
                return


def test_a_worker_that_dies_costs_one_point(monkeypatch):
    monkeypatch.setattr(client, "Worker", Dying)
    monkeypatch.setattr(Dying, "started", 0)
    points = [POINT, TILED, POINT]
    steps = []
    made = list(recorder.measure_points(plan(probes=()), points, progress=lambda *step: steps.append(step)))
    assert [record["state"] for record in made] == ["done", "failed", "done"]
    assert [record["workload"]["global_px"] for record in made] == [64, 128, 64]
    assert Dying.started == 2
    assert made[1]["failure"]["message"] == "the worker ended early (killed by signal 9)" and "memory" in made[1]["failure"]["advice"]
    assert made[1]["ran"]["device_name"] == made[0]["ran"]["device_name"]  # what it said before
    assert all(done < total for done, total, _ in steps) and len({total for _, total, _ in steps}) == 1


def test_a_process_killed_in_the_middle_of_a_run(tmp_path):
    """As by the system's out-of-memory killer; the next point gets a worker of its own."""
    python = script(tmp_path, f"echo x >> {tmp_path}/starts", RAN, "kill -KILL $$")
    made = list(recorder.measure_points(plan(), [POINT, TILED], python=python))
    assert [record["failure"]["message"] for record in made] == ["the worker ended early (killed by signal 9)"] * 2
    assert all("ran out of memory" in record["failure"]["advice"] and record["ran"]["device_name"] == "x" for record in made)
    assert (tmp_path / "starts").read_text() == "x\n" * 2


def test_a_real_worker_killed(monkeypatch):
    class Killed(Worker):
        def __iter__(self):
            for event in super().__iter__():
                if isinstance(event, Progress):
                    os.kill(self._process.pid, signal.SIGKILL)
                yield event

    monkeypatch.setattr(client, "Worker", Killed)
    (record,) = recorder.measure_points(plan(), [POINT])
    assert record["state"] == "failed" and record["failure"]["message"].startswith("the worker ended early (killed by signal 9)")


def test_an_interpreter_without_torch(tmp_path):
    """A real one: Python without its packages."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nPYTHONPATH={Path(of.__file__).parent.parent} exec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    made = list(recorder.measure_points(plan(), [POINT, TILED], python=str(bare)))
    assert [record["failure"]["message"] for record in made] == ["torch is not installed"] * 2
    assert "Install torch >= 2.6 and transformers" in made[0]["failure"]["advice"]


def test_a_worker_of_another_version_that_says_nothing(tmp_path):
    """Must not be started over and over."""
    python = script(tmp_path, DONE)
    made = list(recorder.measure_points(plan(), [POINT, TILED], python=python))
    assert ["without a word" in record["failure"]["message"] for record in made] == [True, True]


def test_what_keeps_the_worker_from_beginning_fails_all_points_at_once(tmp_path):
    python = script(tmp_path, f"""echo x >> {tmp_path}/starts; echo "No module named 'torch'" >&2; exit 1""")
    made = list(recorder.measure_points(plan(), [POINT, TILED], python=python))
    assert [record["state"] for record in made] == ["failed", "failed"] and made[0]["ran"] is None
    assert all("Install torch" in record["failure"]["advice"] for record in made)
    assert (tmp_path / "starts").read_text() == "x\n"


def test_the_time_out_is_of_each_point_and_not_of_waiting(tmp_path):
    steps = []
    python = script(tmp_path, WAITING, "sleep 0.6", WAITING, "sleep 0.6", RAN, FAILED, "sleep 0.6", FAILED, LONG)
    running = recorder.measure_points(
        plan(), [POINT] * 3, python=python, timeout_seconds=0.9, progress=lambda done, total, text: steps.append(text)
    )
    assert [next(running)["failure"]["message"] for _ in range(3)] == ["m", "m", "ended after 0.9 s, the time-out"]
    assert steps == [WAITING.text] * 2


def test_leaving_early_ends_the_worker(monkeypatch):
    workers = []

    class Kept(AtOnce):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            workers.append(self)

    monkeypatch.setattr(client, "Worker", Kept)
    running = recorder.measure_points(plan(probes=()), [POINT, TILED])
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
        (["engine=remote_code"], {}, "^snapshot: engine remote_code runs the published code from a local folder"),
    ],
)
def test_a_plan_that_cannot_be(overrides, rest, message):
    with pytest.raises(of.SpecError, match=message):
        plan(*overrides, **rest)


def test_device_facts_of_a_worker_that_cannot(tmp_path):
    with pytest.raises(of.SpecError, match="^the worker ended early \\(exit code 3\\)"):
        recorder.device_facts(plan(), script(tmp_path, "exit 3"))
    with pytest.raises(of.SpecError, match="^ended after 0.2 s, the time-out"):
        recorder.device_facts(plan(), script(tmp_path, LONG), timeout_seconds=0.2)


def test_no_output_tokens_cost_no_record(monkeypatch):
    monkeypatch.setattr(client, "Worker", Inside)
    (record,) = recorder.measure_points(plan(probes=("memory", "traffic")), [of.Workload(64, output_tokens=0)])
    assert record["state"] == "done" and record["derived"]["vision"]["io_bytes_source"] == "traced"
