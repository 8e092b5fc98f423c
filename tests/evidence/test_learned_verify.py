"""Learned programs against fresh traces of their classes, and DeepSeek-OCR learned against DeepSeek-OCR by hand."""

import json

import pytest

import ocr_flops as of
from ocr_flops.evidence.verify import by_hand, learned
from ocr_flops.spec.reading import config_dir

SHIPPED = [path.stem for path in sorted((config_dir() / "programs").glob("*.json"))]


@pytest.mark.verification
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_programs_equal_fresh_traces(name):
    model = of.load_model(name)
    frame = learned.verify_learned(model, learned.random_workloads(model, 2, seed=4))
    assert frame.filter(frame["difference"] != 0).is_empty()
    assert frame.filter(frame["measured"] > 0).height > 200


@pytest.mark.verification
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_deepseek_ocr_learned_is_deepseek_ocr_by_hand(kernel):
    model = of.load_model("tiny_test")
    program = by_hand.learn_by_traces(model, [(256, 0), (256, 128)], [kernel])
    frame = by_hand.compare_by_hand(model, program)
    assert frame.filter(frame["difference"] != 0).is_empty()
    assert set(frame["stage"]) == {"vision", "prefill", "call", "decode", "model"}


def test_what_was_compared_is_said():
    text = by_hand.describe_comparison()
    if by_hand.DATA.is_file():
        summary = json.loads(by_hand.DATA.read_text())
        assert summary["different"] == 0
        assert f"{summary['compared']:,} numbers compared" in text
    else:
        assert not text


def test_a_program_says_what_it_was_learned_from():
    assert "learned from transformers 5." in learned.describe_versions(of.load_model("glm_ocr"))
