"""The worker as a child process: its protocol, its results, and every way it can end."""

import json
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

import ocr_flops as of
from ocr_flops.evidence import verify
from ocr_flops.measure.client import Worker
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.protocol import SETUP, Request, Step, steps


def point(**rest):
    return {"global_px": 64, "tile_px": 0, "columns": 1, "rows": 1, "prompt_tokens": 3, "output_tokens": 1, "batch_size": 1} | rest


def run(request, python=sys.executable):
    with Worker(request, python) as worker:
        return list(worker)


def test_a_request_survives_the_wire():
    request = Request(
        {"sam": {"width": 96, "global_layers": (1,)}},
        [point(), point(rows=2)],
        dtype="fp16",
        device="meta",
        stages=("vision",),
        kind="trace",
        image="/tmp/ä page.png",
        prefill_logits="all",
    )
    text = request.to_json()
    assert "\n" not in text
    assert Request.from_json(text).to_json() == text
    assert Request.from_json(text).stages == ("vision",)


def test_a_request_of_what_is_needed_has_the_defaults():
    request = Request.from_json('{"schema": 1, "towers": {}, "workloads": []}')
    assert request == Request({}, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", r"^request: not JSON \(Expecting value"),
        ("", "^request: not JSON"),
        ("[1, 2]", "^request: not a JSON object$"),
        ("{}", "^request.schema: None is not 1$"),
        ('{"schema": 2, "towers": {}, "workloads": []}', "^request.schema: 2 is not 1$"),
        ('{"schema": 1, "workloads": []}', "^request: missing field 'towers'$"),
        ('{"schema": 1, "towers": {}}', "^request: missing field 'workloads'$"),
        ('{"schema": 1, "towers": {}, "workloads": [], "colour": 1}', "^request: unknown field 'colour'$"),
        ('{"schema": 1, "towers": {}, "workloads": [], "device": "tpu"}', "^request.device: 'tpu' is not one of auto, meta, cpu, cuda$"),
        ('{"schema": 1, "towers": {}, "workloads": [], "kind": "guess"}', "^request.kind: 'guess' is not one of count, trace"),
    ],
)
def test_what_is_no_request(text, message):
    with pytest.raises(ValueError, match=message):
        Request.from_json(text)


def test_a_run_from_request_to_done(tiny):
    workloads = [of.Workload(256, 128, 2, 1, output_tokens=2), of.Workload(64, output_tokens=1)]
    messages = run(build_request(tiny, workloads, device="meta", attention="sdpa"))
    events = [message["event"] for message in messages]
    assert events[0] == "progress" and events[-1] == "done"
    results = [message for message in messages if message["event"] == "result"]
    assert [result["point"] for result in results] == [0, 1]
    for result in results:
        assert (verify.differences(tiny, result)["difference"] == 0).all()
    progress = [message for message in messages if message["event"] == "progress"]
    assert [message["done"] for message in progress] == list(range(len(progress)))
    assert {message["total"] for message in progress} == {len(progress)}
    assert all(message["text"] for message in progress)
    points = [(stage, point) for point, steps in ((0, 2), (1, 1)) for stage in ("vision", "prefill", *["decode"] * steps)]
    assert [(message["stage"], message["point"]) for message in progress] == [*((stage, None) for stage in SETUP), *points]
    for result in results:
        ran = result["ran"]
        assert ran["device_name"] == "meta" and {"torch", "transformers", "ocr_flops", "python", "platform"} <= set(ran)
        started, finished = (datetime.fromisoformat(ran[name]) for name in ("started", "finished"))
        assert started.utcoffset() == timedelta(0) and started < finished
        assert list(ran["seconds"]) == [*SETUP, "vision", "prefill", "decode"] and all(seconds > 0 for seconds in ran["seconds"].values())
        spent = sum(ran["seconds"][stage] for stage in ("vision", "prefill", "decode"))
        assert abs(spent - (finished - started).total_seconds()) < 0.1
    assert results[0]["ran"]["finished"] <= results[1]["ran"]["started"]


@pytest.mark.parametrize("stages", [("vision",), ("prefill",), ("decode",), ("vision", "prefill"), ("vision", "decode")])
def test_every_step_is_announced(tiny, stages):
    """The steps that both sides count are those that are run."""
    from ocr_flops.measure.__main__ import _serve

    messages, request = [], build_request(tiny, [of.Workload(64, output_tokens=2)] * 2, device="meta", stages=stages)
    _serve(request, lambda **message: messages.append(message))
    announced = [message for message in messages if message["event"] == "progress"]
    assert [Step(message["stage"], message["point"]) for message in announced] == steps(request)
    assert all(message["stage"] in message["text"] for message in announced)


def test_flash_is_refused_with_what_to_do(tiny):
    *_, last = run(build_request(tiny, [of.Workload(64)], device="meta", attention="flash"))
    assert last["event"] == "error"
    assert last["message"] == "attention.sam: 'flash' cannot be run by transformers' UnlimitedOcr class; choose eager or sdpa"
    assert last["advice"]


@pytest.mark.parametrize(
    ("line", "message"),
    [("hello", "request: not JSON (Expecting value: line 1 column 1 (char 0))"), ('{"schema": 9}', "request.schema: 9 is not 1")],
)
def test_garbage_is_answered_with_an_error(line, message):
    done = subprocess.run([sys.executable, "-m", "ocr_flops.measure"], input=line + "\n", capture_output=True, text=True)
    assert done.returncode == 1
    answers = [json.loads(text) for text in done.stdout.splitlines()]
    assert [(answer["event"], answer["message"]) for answer in answers] == [("error", message)]
    assert "Traceback" not in done.stdout + done.stderr


def test_a_killed_worker_leaves_an_error(tiny):
    with Worker(build_request(tiny, [of.Workload(64)], device="meta")) as worker:
        messages = iter(worker)
        assert next(messages)["event"] == "progress"
        worker.cancel()
        *_, last = messages
    assert last["event"] == "error"
    assert last["message"] == "the worker ended early (killed by signal 9)"
    assert last["advice"]


def script(tmp_path, text):
    """An interpreter that ignores its arguments."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interpreter_that_dies_at_once(tiny, tmp_path):
    """The request may find no reader; what the process said last is the advice, and more of it the detail."""
    messages = run(build_request(tiny, [of.Workload(64)]), script(tmp_path, "echo first >&2; echo no such module >&2; exit 3"))
    told = {"message": "the worker ended early (exit code 3)", "advice": "no such module", "detail": "first\nno such module"}
    assert messages == [{"event": "error"} | told]


def test_an_error_carries_the_end_of_the_log(tiny, tmp_path):
    talks = script(tmp_path, """echo a warning >&2; echo '{"event": "error", "message": "m", "advice": "a"}'; sleep 60""")
    messages = run(build_request(tiny, [of.Workload(64)]), talks)
    assert messages == [{"event": "error", "message": "m", "advice": "a", "detail": "a warning"}]


def test_a_long_log_is_cut(tiny, tmp_path):
    (message,) = run(build_request(tiny, [of.Workload(64)]), script(tmp_path, "seq 100000 >&2; exit 1"))
    assert message["advice"] == "100000" and message["detail"].splitlines() == [str(line) for line in range(99981, 100001)]


def test_a_problem_nobody_foresaw_is_logged():
    """The page shows one line; where it was raised is in the log."""
    request = Request({}, [{}]).to_json()
    done = subprocess.run([sys.executable, "-m", "ocr_flops.measure"], input=request + "\n", capture_output=True, text=True)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["message"] == "KeyError: 'output_tokens'" and "Traceback" in done.stderr and "Traceback" not in done.stdout


def test_a_worker_that_nobody_listens_to_ends():
    """It has not even read a request yet, and its stdin stays open."""
    with subprocess.Popen([sys.executable, "-m", "ocr_flops.measure"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        worker.stdout.close()
        assert worker.wait(10) == 1


def test_what_a_library_prints_is_no_message(tiny, tmp_path):
    chatty = script(tmp_path, """cat > /dev/null; echo loading...; echo '{"event": "done"}'""")
    messages = run(build_request(tiny, [of.Workload(64)]), chatty)
    assert messages == [{"event": "done"}]


def test_closing_ends_the_worker(tiny):
    worker = Worker(build_request(tiny, [of.Workload(64)], device="meta"))
    worker.close()
    assert worker._process.returncode is not None
    worker.close()


def test_verify_reports_a_failing_worker_as_one_line(tiny, tmp_path):
    case = verify.Case("count", "eager", "last", (of.Workload(64),))
    with pytest.raises(of.SpecError, match=r"^the worker ended early \(exit code 3\) \(no torch\)$"):
        list(verify.run(tiny, [case], python=script(tmp_path, "echo no torch >&2; exit 3")))


def test_the_client_imports_neither_torch_nor_transformers():
    code = (
        "import sys, ocr_flops.measure.client, ocr_flops.evidence.verify; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_worker_needs_no_more_than_torch_and_transformers():
    """It also runs on a bare GPU box: importing it loads none of what the app needs."""
    heavy = ("polars", "altair", "marimo", "hydra", "omegaconf")
    code = f"import sys, ocr_flops.measure.worker.session, ocr_flops.measure.__main__; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
