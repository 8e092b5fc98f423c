"""Fixtures shared by the tests: model specs, and the worker run inside this process."""

import pytest

import ocr_flops as of


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
    """Serves a request in this process, without a child's start: the messages the worker would send, the result messages first."""
    from ocr_flops.measure.__main__ import _serve

    def served(request):
        messages = []
        _serve(request, lambda **message: messages.append(message))
        return [message for message in messages if message["event"] == "result"]

    return served
