"""What goes over the wire: a request, and events, also from a worker of another version."""

import json

import pytest

import ocr_flops as of
from ocr_flops.measure.events import EVENTS, Done, Progress, Result, read_event, write_event
from ocr_flops.measure.failures import Failure
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.protocol import Point, Request
from tests.support.timed import POINT, plan
from tests.support.workers import FAILED, RAN, RESULT

ONE = Point(64, 0, 1, 1, 3, 1, 1)
TIMED = {"schema": 1, "towers": {}, "workloads": [], "kind": "time", "device": "cpu"}


@pytest.mark.parametrize(
    "request_",
    [
        Request({}, []),
        Request({"sam": {"width": 96}}, [ONE, ONE], dtype="fp16", device="meta", stages=("vision",), kind="trace", image="/tmp/ä page.png"),
        plan(probes=("traffic",), experts="eager").request([POINT]),
    ],
)
def test_a_request_survives_the_wire(request_):
    text = request_.to_json()
    assert "\n" not in text and json.loads(text)["passes"] == list(request_.probes)
    assert Request.from_json(text).to_json() == text and Request.from_json(text).workloads == request_.workloads


def test_a_request_of_what_is_needed_has_the_defaults():
    assert Request.from_json('{"schema": 1, "towers": {}, "workloads": []}') == Request({}, [])


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
        ('{"schema": 1, "towers": {}, "workloads": [{"rows": 1}]}', "^request.workloads: missing 6 required"),
        ('{"schema": 1, "towers": {}, "workloads": [], "colour": 1}', "^request: unknown field 'colour'$"),
        ('{"schema": 1, "towers": {}, "workloads": [], "device": "tpu"}', "^request.device: 'tpu' is not one of auto, meta, cpu, cuda$"),
        ('{"schema": 1, "towers": {}, "workloads": [], "kind": "guess"}', "^request.kind: 'guess' is not one of count, trace"),
        ('{"schema": 1, "towers": {}, "workloads": [], "engine": "vllm"}', "^request.engine: 'vllm' is not one of transformers, remote"),
        (json.dumps(TIMED | {"device": "meta"}), "^device: 'meta' holds no data"),
        (json.dumps(TIMED | {"runs": 0}), "^runs: 0 is not a whole number of at least 1"),
        (json.dumps(TIMED | {"warmup": -1}), "^warmup: -1 is not"),
        (json.dumps(TIMED | {"passes": ["memory", "magic"]}), "^passes: 'magic' is not one of modules, memory, flops, traffic"),
        (json.dumps(TIMED | {"experts": "all"}), "^experts: 'all' is not one of eager"),
    ],
)
def test_what_is_no_request(text, message):
    with pytest.raises(ValueError, match=message):
        Request.from_json(text)


def test_decode_steps_are_limited_when_counted_and_not_when_timed(tiny):
    points = [of.Workload(64, output_tokens=300), of.Workload(64, output_tokens=1)]
    assert [point.output_tokens for point in build_request(tiny, points).workloads] == [3, 1]
    assert [point.output_tokens for point in plan().request(points).workloads] == [300, 1]


@pytest.mark.parametrize("event", [Progress(1, 6, "vision", "vision", 0), RESULT, FAILED, RAN, Failure("m", "a", "log\nlog"), Done()])
def test_an_event_survives_the_wire(event):
    assert read_event(write_event(event)) == event
    assert json.loads(write_event(event))["event"] in EVENTS


def test_a_result_as_it_was_always_written():
    """Sweeps keep such lines in files."""
    line = '{"event": "result", "point": 0, "workload": {"global_px": 64, "tile_px": 0, "columns": 1, "rows": 1, "prompt_tokens": 3, '
    line += '"output_tokens": 1, "batch_size": 1}, "ran": {}, "stages": {}}'
    assert read_event(line) == RESULT and write_event(RESULT) == line


@pytest.mark.parametrize("line", ["loading...", "3", "[1]", "{}", '{"event": "used", "kib": 3}', '{"event": ["result"]}'])
def test_what_is_no_event_is_skipped(line):
    assert read_event(line) is None


def test_events_of_another_version():
    assert read_event('{"event": "done", "colour": 1}') == Done()
    failure = read_event('{"event": "progress", "percent": 3}')
    assert isinstance(failure, Failure) and "progress" in failure.message and "another version" in failure.advice
    assert isinstance(read_event('{"event": "result", "point": 0, "workload": {}, "ran": {}, "stages": {}}'), Failure)
    assert not isinstance(read_event(write_event(RESULT)), Failure) and isinstance(RESULT, Result)
