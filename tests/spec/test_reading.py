"""Configs as mappings become specs, or one line that names the key, its value and what is allowed."""

from copy import deepcopy

import pytest

from ocr_flops.errors import SpecError
from ocr_flops.spec import catalog
from ocr_flops.spec.reading import read_attention, read_engine, read_hardware, read_model
from ocr_flops.spec.run_spec import read_workload

READERS = {
    "model": read_model,
    "hardware": read_hardware,
    "workload": read_workload,
    "engine": lambda config: read_engine(config, catalog.kernels()),
    "attention": lambda config: read_attention(config, catalog.kernels()),
}
NAMES = {"model": "deepseek_ocr", "hardware": "h200", "workload": "gundam", "engine": "transformers", "attention": "vendor"}


def changed(key, change):
    """A config with the place that key names handed to change(mapping, name)."""
    group, *path = key.split(".")
    whole = {group: deepcopy(catalog.group_config(group, NAMES[group]))}
    inner = whole
    for part in (group, *path)[:-1]:
        inner = inner[part]
    change(inner, (group, *path)[-1])
    return lambda: READERS[group](whole[group])


@pytest.mark.parametrize("group", READERS)
def test_configs_are_read(group):
    assert READERS[group](catalog.group_config(group, NAMES[group])).name == NAMES[group]


WRONG = [  # key, value, what the message says after both
    ("workload.batch_size", "many", "is not a whole number"),
    ("workload.columns", 2.5, "is not a whole number or null"),
    ("workload.columns", True, "is not a whole number or null"),
    ("workload.output_tokens", None, "is not a whole number"),
    ("workload.output_tokens", [1], "is not a whole number"),
    ("model.towers.sam.layers", 12.0, "is not a whole number"),
    ("model.towers.sam.global_layers", 2, "is not a list of whole numbers"),
    ("model.towers.sam.global_layers", [2, True], "is not a list of whole numbers"),
    ("model.towers.sam", 3, "is not a mapping with the keys image_px, "),
    ("model.towers", None, "is not a mapping of towers (sam, clip, projector, decoder) to dimensions"),
    ("model.label", 3, "is not text"),
    ("model", None, "is not a mapping with the keys name, label, towers"),
    ("hardware.memory_bytes", "large", "is not a number"),
    ("hardware.memory_bytes", True, "is not a number"),
    ("hardware.memory_bytes", 10**400, "is not a number"),
    ("hardware.vector_fp32_flops_per_second", "fast", "is not a number or null"),
    ("hardware.matrix_flops_per_second.bf16", "fast", "is not a number"),
    ("hardware.matrix_flops_per_second", 9, "is not a mapping of figures to numbers"),
    ("hardware.sources", "book", "is not a list of sources"),
    ("hardware.device_names", "H200", "is not a list of texts"),
    ("engine.chooses_logits", 1, "is not true or false"),
    ("engine.prefill_logits", "some", "is not one of all, last"),
    ("engine.runnable_attention", ["fast"], None),
    ("attention.sam", 3, "is not one of eager, flash, sdpa or null"),
    ("attention.sam", "sparkle", "is not one of eager, flash, sdpa or null"),
    # values that no spec has
    ("hardware.memory_bytes", -1.0, "is not a number from 1 to 1e+24"),
    ("hardware.memory_bandwidth_bytes_per_second", 0.0, "is not a number from 1 to 1e+24"),
    ("hardware.memory_bytes", float("inf"), "is not a number from 1 to 1e+24"),
    ("hardware.matrix_flops_per_second.bf16", float("nan"), "is not a number from 1 to 1e+24"),
    ("model.towers.sam.width", 97, "is not divisible by sam.heads = 12"),
    ("model.towers.decoder.layers", 0, "is not a whole number from 1 to 1000"),
    ("model.towers.decoder.experts_per_token", 65, "exceeds decoder.experts = 64"),
    ("model.towers.sam.global_layers", [12], "names layers outside 0..11"),
    # towers that do not fit each other
    ("model.towers.clip.width", 512, "is not sam.output_width = 1024"),
    ("model.towers.projector.input_width", 1024, "is not clip.width + sam.output_width = 2048"),
    ("model.towers.projector.output_width", 1290, "is not decoder.width = 1280"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(key, value, allowed):
    with pytest.raises(SpecError) as caught:
        changed(key, lambda inner, name: inner.update({name: value}))()
    message = str(caught.value)
    assert message.startswith(f"{key}: ") and "\n" not in message
    assert allowed is None or message.startswith(f"{key}: {value!r} {allowed}"), message
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)


@pytest.mark.parametrize(
    ("key", "has"),
    [
        ("workload.batch_sizes", "workload has 13 names; nearest: batch_size"),
        ("model.towers.sam.windows", "model.towers.sam has 11 names; nearest: window"),
        ("engine.fast", "engine has name, "),
        ("hardware.price", "hardware has name, label, manufacturer, "),
        ("attention.llm", "attention has name, sam, clip, "),
    ],
)
def test_an_unknown_key_is_named_with_those_there_are(key, has):
    with pytest.raises(SpecError) as caught:
        changed(key, lambda inner, name: inner.update({name: 1}))()
    assert str(caught.value).startswith(f"{key}: unknown key; {has}")


def test_all_missing_keys_are_named_at_once():
    with pytest.raises(SpecError, match=r"^model.towers.sam.layers, model.towers.sam.window: missing$"):
        changed("model.towers.sam", lambda inner, name: [inner[name].pop(gone) for gone in ("window", "layers")])()
    with pytest.raises(SpecError, match=r"^engine.label: missing$"):
        changed("engine.label", dict.pop)()


def test_an_unknown_tower_is_named():
    with pytest.raises(SpecError, match=r"^model.towers: 'projectile' is not one of sam, clip, projector, decoder$"):
        changed("model.towers.projector", lambda inner, name: inner.update(projectile=inner.pop(name)))()
