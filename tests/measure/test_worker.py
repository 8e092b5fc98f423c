"""The worker as a child process: what it says from request to done, and to what is no request."""

import json
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

import ocr_flops as of
from ocr_flops.evidence import verify
from ocr_flops.measure.client import converse
from ocr_flops.measure.events import Done, Progress, Result
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.protocol import SETUP, ProgressStep, Request, progress_steps

WORKER = [sys.executable, "-m", "ocr_flops.measure"]


def test_a_run_from_request_to_done(tiny):
    request = build_request(tiny, [of.Workload(256, 128, 2, 1, output_tokens=2), of.Workload(64, output_tokens=1)], device="meta")
    with converse(request) as talk:
        events = list(talk)
    assert events[-1] == Done() and isinstance(events[0], Progress)
    progress = [event for event in events if isinstance(event, Progress)]
    assert [ProgressStep(event.stage, event.point) for event in progress] == progress_steps(request)
    assert [(event.done, event.total) for event in progress] == [(number, len(progress)) for number in range(len(progress))]
    assert all(event.text for event in progress)
    results = [event for event in events if isinstance(event, Result)]
    assert [result.point for result in results] == [0, 1]
    for result in results:
        assert (verify.compare_numbers(tiny, result)["difference"] == 0).all()
        ran = result.ran
        assert ran["device_name"] == "meta" and {"torch", "transformers", "ocr_flops", "python", "platform"} <= set(ran)
        started, finished = (datetime.fromisoformat(ran[name]) for name in ("started", "finished"))
        assert started.utcoffset() == timedelta(0) and started < finished
        assert list(ran["seconds"]) == [*SETUP, "vision", "prefill", "decode"] and all(seconds > 0 for seconds in ran["seconds"].values())
        spent = sum(ran["seconds"][stage] for stage in ("vision", "prefill", "decode"))
        assert abs(spent - (finished - started).total_seconds()) < 0.1
    assert results[0].ran["finished"] <= results[1].ran["started"]


@pytest.mark.parametrize("stages", [("vision",), ("prefill",), ("decode",), ("vision", "prefill"), ("vision", "decode")])
def test_every_step_is_announced(tiny, stages):
    """The steps that both sides count are those that are run."""
    from ocr_flops.measure.__main__ import serve

    events, request = [], build_request(tiny, [of.Workload(64, output_tokens=2)] * 2, device="meta", stages=stages)
    serve(request, events.append)
    announced = [event for event in events if isinstance(event, Progress)]
    assert [ProgressStep(event.stage, event.point) for event in announced] == progress_steps(request)
    assert all(event.stage in event.text for event in announced)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hello", "request: not JSON (Expecting value: line 1 column 1 (char 0))"),
        ('{"schema": 9}', "request.schema: 9 is not 1"),
    ],
)
def test_what_is_no_request_is_answered_with_an_error(line, message):
    done = subprocess.run(WORKER, input=line + "\n", capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    (answer,) = map(json.loads, done.stdout.splitlines())
    assert (answer["event"], answer["message"]) == ("error", message) and "another version" in answer["advice"]


def test_a_problem_nobody_foresaw_is_logged():
    """The page shows one line; where it was raised is in the log."""
    code = "from ocr_flops.measure import __main__ as worker; worker.serve = lambda request, send, **rest: request.towers['sam']; worker.main()"
    done = subprocess.run([sys.executable, "-c", code], input=Request({}, []).to_json() + "\n", capture_output=True, text=True)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["message"] == "KeyError: 'sam'" and "Traceback" in done.stderr and "Traceback" not in done.stdout


def test_a_worker_that_nobody_listens_to_ends():
    """It has not even read a request yet, and its stdin stays open."""
    with subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        worker.stdout.close()
        assert worker.wait(10) == 1


def test_the_worker_needs_no_more_than_torch_and_transformers():
    """It also runs on a bare GPU box: importing it loads none of what the app needs."""
    heavy = ("polars", "altair", "marimo", "hydra", "omegaconf", "numpy.f2py", "msgspec", "pydantic")
    code = f"import sys, ocr_flops.measure.worker.session, ocr_flops.measure.__main__; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
