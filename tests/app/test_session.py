"""What a page keeps, and the runs its buttons ask for; the worker itself is not run here."""

import json
from types import SimpleNamespace

import pytest

import ocr_flops as of
from ocr_flops.app import session, views
from ocr_flops.app.session import Session
from ocr_flops.app.setting import Setting
from ocr_flops.app.spot_checks import STORE
from ocr_flops.evidence import records
from ocr_flops.measure.job_queue import QUEUE
from ocr_flops.spec import documents
from tests.support.images import encoded, png_header
from tests.support.results import result


@pytest.fixture
def page():
    return Session()


@pytest.fixture
def queue(monkeypatch):
    """What the queue is asked for; `full` makes it refuse."""
    fake = SimpleNamespace(asked=[], full=False)

    def submit(request, *, label, owner, on_result=lambda message: None):
        if fake.full:
            raise of.SpecError("spot check: one is still running")
        fake.asked.append((json.loads(request.to_json()), label, owner))
        on_result(result(Setting()))

    monkeypatch.setattr(QUEUE, "submit", submit)
    yield fake
    STORE.clear()


def shown(model, **values):
    return views.Results(model, Setting(**values))


def file(content, name="page.png"):
    return [SimpleNamespace(name=name, contents=content)]


def test_a_document_gives_the_pages_size(page):
    assert page.document_page(1, 200) == ({}, "no file yet: as set under page size")
    assert page.read_document(file(encoded("JPEG", (1200, 300)), "scan.jpg")) is None
    assert page.document_page(None, None) == ({"width_px": 1200, "height_px": 300}, "scan.jpg")
    page.document = documents.Document("paper.pdf", "pt", ((612.0, 792.0), (792.0, 612.0)))
    assert page.document_page(2, 144)[0] == {"width_px": 1584, "height_px": 1224}
    with pytest.raises(of.SpecError, match="1 to 2"):
        page.document_page(3, 144)


@pytest.mark.parametrize("content", [b"just text", png_header(20_000, 20_000), png_header(0, 9), b"", b"%PDF-1.7 and then nothing"])
def test_a_file_that_cannot_be_read_says_why_and_the_last_good_one_stays(page, content):
    page.read_document(file(encoded("PNG", (1200, 300))))
    assert "notes.png" in page.read_document(file(content, "notes.png"))
    assert page.document_page(1, 200)[0]["width_px"] == 1200
    assert page.read_document([]) is None and page.document is None


def test_the_setting_shown_is_run_and_kept(model, page, queue):
    page.results = shown(model, attention="eager", dtype="fp16")
    page.ask(lambda results, owner: session.check_model(results, owner, scope="current point", device="meta"))
    request, label, owner = queue.asked[0]
    assert (request["kind"], request["dtype"], request["device"], owner) == ("trace", "fp16", "meta", page.owner)
    assert request["engine"] == "transformers" and set(request["attention"].values()) == {"eager"}
    assert request["workloads"][0].items() >= {"columns": 2, "rows": 3, "output_tokens": 3}.items() and label.startswith("2 × 3 tiles")
    assert len(STORE.frames()) == 1 and page.refused is None
    session.check_model(page.results, "me", scope="all grids of the tile rule", device="meta")
    assert len(queue.asked[1][0]["workloads"]) == 23 and queue.asked[1][1] == "23 points, gundam"


def test_a_setting_without_result_is_not_run_and_a_refusal_is_kept_until_a_run_starts(model, page, queue):
    page.ask(session.audit_counter)
    assert queue.asked == []
    page.results, queue.full = shown(model), True
    page.ask(session.audit_counter)
    assert page.refused == "spot check: one is still running"
    queue.full = False
    page.ask(session.audit_counter)
    assert page.refused is None and queue.asked[0][0]["kind"] == "audit"


def test_a_timed_run_is_recorded(model, queue, monkeypatch, tmp_path):
    monkeypatch.setenv("OCR_FLOPS_RECORDS", str(tmp_path))
    kept = []
    monkeypatch.setattr(records, "make_record", lambda plan, workload, event: (plan.run.attention.name, workload.image_tokens))
    monkeypatch.setattr(records, "write_record", lambda record, where: kept.append((record, where)))
    session.time_model(shown(model, attention="eager"), "me", device="auto")
    request, label, _ = queue.asked[0]
    assert request["kind"] == "time" and set(request["attention"].values()) == {"eager"} and "timed" in label
    assert kept == [(("eager", Setting().workload.image_tokens), tmp_path)]
    for wrong, why in (({"engine": "remote_code"}, "no snapshot of the published code"), ({"cache": "static"}, "cannot be measured")):
        with pytest.raises(of.SpecError, match=why):
            session.time_model(shown(model, **wrong), "me", device="auto")
    assert len(queue.asked) == 1
