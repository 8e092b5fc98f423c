"""The rules of a conversation with the worker: how it ends, what becomes of each point, time limits and cancellation."""

import subprocess
import sys
import threading
import time

import pytest

import ocr_flops as of
from ocr_flops.measure import failures
from ocr_flops.measure.client import Worker, ask, converse, interpreter
from ocr_flops.measure.events import Done, PointFailed, Ran, Result
from ocr_flops.measure.failures import Failure
from ocr_flops.measure.protocol import Request
from tests.support.workers import COUNT, DONE, FAILED, LONG, POINT, RAN, RESULT, TIME, WAITING, is_alive, pids, script, step, until


def events_of(python, request=COUNT, **options):
    with converse(request, python, **options) as talk:
        return list(talk)


def ends(events):
    """Number and message of each point that failed, and the last event."""
    return [(event.point, event.message) for event in events if isinstance(event, PointFailed)], events[-1]


def test_events_come_as_they_were_said(tmp_path):
    told = [step(0), RAN, RESULT, DONE]
    assert events_of(script(tmp_path, told[0], "echo loading...", *told[1:])) == told


@pytest.mark.parametrize(
    ("lines", "last"),
    [
        (
            ["echo first >&2; echo no such module >&2; exit 3"],
            ("the worker ended early (exit code 3)", "no such module", "first\nno such module"),
        ),
        (["echo a warning >&2", Failure("m", "a"), LONG], ("m", "a", "a warning")),
        (["""echo '{"event": "progress"}'""", LONG], None),
        (["kill -9 $$"], ("the worker ended early (killed by signal 9)", None, "")),
        (["seq 100000 >&2; exit 1"], ("the worker ended early (exit code 1)", "100000", "\n".join(map(str, range(99981, 100001))))),
    ],
)
def test_whatever_becomes_of_the_worker_the_last_event_says_it(tmp_path, lines, last):
    (event,) = events_of(script(tmp_path, *lines))
    assert isinstance(event, Failure) and event.message and event.advice
    if last is not None:
        assert event.message == last[0] and last[1] in (None, event.advice) and event.detail == last[2]


def test_an_interpreter_that_cannot_be_started(tmp_path):
    path = tmp_path / "python"
    path.write_text("#!/nowhere/interpreter\n")
    path.chmod(0o755)
    (event,) = events_of(str(path))
    assert event == Failure("the worker cannot be started (No such file or directory)", "Choose another interpreter for it.")


def test_every_timed_point_has_an_end(tmp_path):
    """The one that the worker died at, or all where it could not begin: the next worker could not either."""
    assert ends(events_of(script(tmp_path, RAN, FAILED, RESULT, DONE), TIME)) == ([(0, "m")], Done())
    dead = "the worker ended early (exit code 3)"
    failed, last = ends(events_of(script(tmp_path, RAN, RESULT, "exit 3"), TIME))
    assert failed == [(1, dead)] and last.message == dead
    assert ends(events_of(script(tmp_path, RAN, "exit 3"), TIME))[0] == [(0, dead)]
    assert ends(events_of(script(tmp_path, "exit 3"), TIME))[0] == [(0, dead), (1, dead)]
    (*failed, done) = events_of(script(tmp_path, DONE), TIME)  # of another version, perhaps
    assert [event.failure for event in failed] == [failures.SILENT] * 2 and done == Done()
    (last,) = events_of(script(tmp_path, "exit 3"), COUNT)  # nothing is recorded of points that are only counted
    assert last.message == dead


def test_a_point_that_failed_says_what_ran(tmp_path):
    *_, failed, _ = events_of(script(tmp_path, RAN, "exit 3"), TIME)
    assert (failed.workload, failed.ran) == (POINT, RAN.ran)


def test_a_worker_that_takes_too_long(tmp_path):
    failed, last = ends(events_of(script(tmp_path, RAN, LONG), TIME, timeout_seconds=0.3))
    assert failed == [(0, "ended after 0.3 s, the time-out")] and last.message == failed[0][1] and "--timeout" in last.advice
    assert "10 min" in failures.timed_out(600).message


def test_the_time_may_be_that_of_each_point(tmp_path):
    talks = script(tmp_path, RAN, "sleep 0.5", FAILED, "sleep 0.5", FAILED, DONE)
    assert events_of(talks, TIME, timeout_seconds=0.8, per_point=True)[-1] == Done()
    assert ends(events_of(talks, TIME, timeout_seconds=0.8))[0] == [(0, "m"), (1, "ended after 0.8 s, the time-out")]


@pytest.mark.parametrize("per_point", [True, False])
def test_waiting_for_a_gpu_takes_no_time(tmp_path, per_point):
    waits = script(tmp_path, *[WAITING, "sleep 0.3"] * 4, RAN, FAILED, FAILED, DONE)
    events = events_of(waits, TIME, timeout_seconds=0.6, per_point=per_point)
    assert events.count(WAITING) == 4 and events[-1] == Done()
    assert "time-out" in events_of(script(tmp_path, WAITING, step(0), LONG), TIME, timeout_seconds=0.3)[-1].message


def test_cancelling_from_elsewhere(tmp_path):
    """At once, with all its children; no point is blamed."""
    file = tmp_path / "pids"
    with converse(TIME, script(tmp_path, f"sleep 60 & echo $$ $! > {file}", RAN, "wait")) as talk:
        events = iter(talk)
        assert next(events) == RAN
        found = until(lambda: len(pids(file)) == 2 and pids(file))
        began = time.monotonic()
        threading.Timer(0.05, talk.cancel, [failures.ABANDONED]).start()
        assert list(events) == [failures.ABANDONED] and time.monotonic() - began < 5
    until(lambda: not any(map(is_alive, found)))


def test_leaving_ends_the_worker_and_what_it_left_behind(tmp_path):
    file = tmp_path / "pids"
    with converse(COUNT, script(tmp_path, f"sleep 60 > /dev/null 2>&1 & echo $$ $! > {file}", RESULT, LONG)) as talk:
        next(iter(talk))
    until(lambda: not any(map(is_alive, pids(file))))
    worker = Worker(COUNT, script(tmp_path, LONG))
    worker.close()
    worker.close()


def test_asking_yields_answers_or_raises(tmp_path):
    steps = []
    assert list(ask(COUNT, script(tmp_path, step(0), RAN, RESULT, DONE), progress=steps.append)) == [RAN, RESULT]
    assert steps == [step(0)]
    answers = ask(COUNT, script(tmp_path, RESULT, "echo no torch >&2; exit 3"))
    assert isinstance(next(answers), Result)
    with pytest.raises(of.SpecError, match=r"^the worker ended early \(exit code 3\) \(no torch\)$"):
        next(answers)
    with pytest.raises(of.SpecError, match="^ended after 0.2 s, the time-out"):
        list(ask(COUNT, script(tmp_path, LONG), timeout_seconds=0.2))


def test_an_interpreter_is_named_or_of_the_environment(tmp_path, monkeypatch):
    assert interpreter() == sys.executable
    named = script(tmp_path, "echo")
    monkeypatch.setenv("OCR_FLOPS_PYTHON", named)
    assert interpreter() == named and interpreter(sys.executable) == sys.executable
    monkeypatch.setenv("OCR_FLOPS_SNAPSHOT_PYTHON", sys.executable)  # the published code's, which needs other packages
    assert interpreter() == named and interpreter(engine="remote_code") == sys.executable
    (tmp_path / "text").write_text("")
    for name, why in (("nowhere", "is not there"), ("text", "cannot be executed"), ("", "is not a file")):
        with pytest.raises(of.SpecError, match=f"^--python: .* {why}; name the Python interpreter"):
            interpreter(str(tmp_path / name))


def test_the_client_imports_neither_torch_nor_transformers():
    code = "import sys, ocr_flops.measure.job_queue, ocr_flops.evidence.verify; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_device_facts_are_an_answer(tmp_path):
    assert list(ask(Request({}, [], kind="device"), script(tmp_path, RAN, DONE))) == [Ran({"device_name": "x"})]
