"""Classes of transformers, learned at tiny dimensions: their programs equal fresh traces, and traces on meta those with data."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

import ocr_flops as of
from ocr_flops.cost.learning.folding import Unlearnable
from ocr_flops.cost.models.learned import kept_path
from ocr_flops.evidence.verify.learned import random_workloads, verify_learned
from ocr_flops.measure import client
from ocr_flops.measure.worker import learning
from ocr_flops.measure.worker.class_session import ClassSession
from ocr_flops.measure.worker.learning import sum_launches
from tests.support.timed import Inside

ROPE = {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 1.0, "mrope_section": [2, 3, 3]}
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2}
TINY = {
    "image_token_id": 9,
    "text_config": TEXT | {"head_dim": 16, "vocab_size": 99, "rope_parameters": ROPE},
    "vision_config": {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 32},
}
CLASS = "GlmOcrForConditionalGeneration"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model of one's own, and a cache that nothing is in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "my_ocr"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"architectures": [CLASS], "transformers_version": "5.0", **TINY}))
    return place


@pytest.mark.verification
def test_a_model_of_ones_own_is_learned_once_and_equals_fresh_traces(folder, capsys, monkeypatch):
    monkeypatch.setattr(client, "Worker", Inside)
    model = of.load_model(str(folder))
    assert (model.name, model.learned.architecture) == ("my_ocr", CLASS)
    page = of.Workload.from_image(300, 400, output_tokens=3)
    first = of.estimate(model, page).stage_numbers
    assert "learned from its class, this once" in capsys.readouterr().err
    assert kept_path(model).is_file()
    assert of.estimate(model, page).stage_numbers == first
    assert not capsys.readouterr().err
    frame = verify_learned(model, random_workloads(model, 2), kernels=["sdpa"])
    assert set(frame["stage"]) == {"vision", "prefill", "call", "decode"}
    assert frame.filter(frame["measured"] > 0).height > 100
    assert frame.filter(frame["difference"] != 0).is_empty()


def test_traces_on_meta_are_those_with_data():
    """Grids stay on the CPU beside pixels on meta; where everything is on one device, the same operators run."""
    found = []
    for device in ("meta", "cpu"):
        session = ClassSession(CLASS, TINY, "eager")
        if device == "cpu":
            session.model.to_empty(device="cpu")
            session.rest_weights()
        with session.running():
            session.door = replace(session.door, inputs=partial(moved, session.door.inputs, device))
            found.append(sum_launches(session.trace("vision", 2, {"patch_rows": 4, "patch_columns": 6}).launches))
    assert found[0] == found[1]


def moved(inputs, device, *arguments):
    """A door's inputs, with pixels on a device."""
    return {name: torch.zeros_like(value, device=device) if name == "pixel_values" else value for name, value in inputs(*arguments).items()}


def test_a_kernel_that_cannot_be_learned_is_left_out_with_its_reason(monkeypatch):
    def learn(session, key, texts):
        if key.attention == "eager":
            raise Unlearnable("vision, eager: blocks.0: bmm: its live bytes are no polynomial (1 at 2)")
        return key

    monkeypatch.setattr(learning, "_learn", learn)
    program = learning.learn_class(CLASS, TINY)
    assert {stage.attention for stage in program.stages} == {"sdpa"}
    assert program.left_out == {"eager": "vision, eager: blocks.0: bmm: its live bytes are no polynomial"}
    with pytest.raises(Unlearnable, match="bmm.*1 at 2"):
        learning.learn_class(CLASS, TINY, ["eager"])


def test_what_is_no_class_of_a_known_kind_is_refused():
    for name, message in (("BertModel", "BertModel .bert. is not one of"), ("NoSuchClass", "is no class of transformers")):
        with pytest.raises(Unlearnable, match=message):
            ClassSession(name, {}, "eager")


def test_folders_that_are_no_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(of.SpecError, match=r"config\.json is no config of a model"):
        of.load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(of.SpecError, match="is of BertModel; what a page is to a model is known here for"):
        of.load_model(str(tmp_path))
