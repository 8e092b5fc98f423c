"""Fixtures shared by the tests: model specs, and the worker run inside this process."""

import gc

import pytest

import ocr_flops as of

gc.disable()  # importing makes objects, not garbage: a fifth of the time that it takes


def pytest_collection_finish():
    """What is imported stays, so that collecting garbage (the worker does it before each stage) need not look at it: 0.3 s each time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def records_of_their_own(tmp_path_factory):
    """What this machine's user has recorded is none of the tests' business, and the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCR_FLOPS_RECORDS", str(tmp_path_factory.mktemp("records")))
        yield


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    """Output is as wide as it needs, whatever width the runner of the tests announces."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def model():
    """DeepSeek-OCR."""
    return of.load_model("deepseek_ocr")


@pytest.fixture(scope="session")
def tiny():
    """A model in which every dimension differs from DeepSeek-OCR's, so that what is hard-coded shows."""
    return of.load_model("tiny_test")


@pytest.fixture(scope="session")
def serve():
    """Serves a request in this process, without a child's start: the results that the worker would send."""
    from ocr_flops.measure.__main__ import serve
    from ocr_flops.measure.events import Result

    def served(request):
        import torch

        events, threads = [], torch.get_num_threads()
        torch.set_num_threads(1)  # on a busy machine several wait for one another
        try:
            serve(request, events.append)
        finally:
            torch.set_num_threads(threads)
        return [event for event in events if isinstance(event, Result)]

    return served
