"""Composition of configs into specs: what overrides change, what is refused and in which words, and that a wheel carries the configs."""

import re
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest

from ocr_flops.errors import SpecError
from ocr_flops.spec import catalog
from ocr_flops.spec.run_spec import load_run
from ocr_flops.spec.specs import AttentionSpec
from ocr_flops.spec.workload import Workload

ROOT = Path(__file__).parents[2]


def test_names_of_groups():
    assert catalog.names("model") == ("deepseek_ocr", "tiny_test")
    assert catalog.names("engine") == ("remote_code", "transformers")
    assert catalog.names("attention") == ("eager", "flash", "sdpa", "vendor")
    assert catalog.names("no_such_group") == ()


def test_modes_by_size():
    assert [(mode.name, mode.label, mode.global_px, mode.tile_px) for mode in catalog.modes()] == [
        ("tiny", "Tiny", 512, 0),
        ("small", "Small", 640, 0),
        ("base", "Base", 1024, 0),
        ("large", "Large", 1280, 0),
        ("gundam", "Gundam", 1024, 640),
        ("gundam_m", "Gundam-M", 1280, 1024),
    ]
    assert {mode.untiled_up_to_px for mode in catalog.modes()} == {640}


def test_the_models_dimensions():
    model = catalog.load_model()
    assert (model.name, [tower.tower for tower in model.towers]) == ("deepseek_ocr", ["sam", "clip", "projector", "decoder"])
    assert (model.tower("sam").global_layers, model.tower("sam").output_width) == ((2, 5, 8, 11), 1024)
    assert (model.tower("decoder").head_dim, model.tower("decoder").experts) == (128, 64)
    assert catalog.load_model("deepseek_ocr") is model  # composed once
    assert isinstance(hash(model), int)
    with pytest.raises(FrozenInstanceError):
        model.name = "other"


def test_the_second_model_shares_no_dimension():
    for ours, tiny in zip(catalog.load_model().towers, catalog.load_model("tiny_test").towers, strict=True):
        same = {field.name for field in fields(ours) if getattr(ours, field.name) == getattr(tiny, field.name)}
        assert same <= {"channels", "patch_px", "dense_layers", "shared_experts"}, ours.tower


def test_overrides_of_a_model():
    model = catalog.load_model("tiny_test", ["model.towers.sam.width=48", "model.towers.sam.global_layers=[0,2]", "model.label=mine"])
    assert (model.tower("sam").width, model.tower("sam").global_layers, model.label) == (48, (0, 2), "mine")
    assert catalog.load_model("tiny_test").tower("sam").width == 96
    with pytest.raises(SpecError, match="^'workload.columns=2': not an override of the model"):
        catalog.load_model("tiny_test", ["workload.columns=2"])


def test_engines_and_attention():
    ours, remote = catalog.load_engine(), catalog.load_engine("remote_code")
    assert (ours.name, ours.prefill_logits, ours.runnable_attention) == ("transformers", "last", ("eager", "sdpa"))
    assert (remote.prefill_logits, remote.kernel("decoder"), remote.runnable_attention) == ("all", "eager", ())
    model, towers = catalog.load_model(), ("sam", "clip", "decoder")
    assert catalog.load_attention("vendor").resolved(model, remote) == AttentionSpec(
        "vendor", {"sam": "sdpa", "clip": "sdpa", "decoder": "eager"}
    )
    assert catalog.load_attention("flash").resolved(model, ours) == AttentionSpec("flash", dict.fromkeys(towers, "flash"))


@pytest.mark.parametrize(
    "load", [catalog.load_model, catalog.load_engine, catalog.load_attention, catalog.load_mode, catalog.load_hardware]
)
def test_unknown_names(load):
    with pytest.raises(SpecError, match=r"^(model|engine|attention|workload|hardware): 'nope' is not one of \w+, "):
        load("nope")


def test_default_run():
    run = load_run()
    assert (run.model, run.engine, run.attention) == (catalog.load_model(), catalog.load_engine(), catalog.load_attention())
    assert (run.dtype, run.cache, run.prefill_logits, run.stages) == ("bf16", "dynamic", "last", ("vision", "prefill", "decode"))
    assert run.hardware is None
    page = run.workload
    assert (page.image_width_px, page.image_height_px, page.columns, page.rows) == (1654, 2339, 2, 3)
    assert (page.mode, page.prompt_tokens, page.output_tokens, page.batch_size) == ("gundam", 10, 256, 1)


def test_overrides_of_a_run():
    run = load_run(
        [
            "model=tiny_test",
            "engine=remote_code",
            "workload=gundam_m",
            "attention=eager",
            "dtype=fp16",
            "cache=static",
            "workload.output_tokens=7",
            "workload.batch_size=3",
            "workload.prompt_tokens=0",
            "stages=[decode,vision]",
        ]
    )
    assert (run.model.name, run.engine.name, run.attention.name) == ("tiny_test", "remote_code", "eager")
    assert (run.workload.mode, run.workload.output_tokens, run.workload.batch_size, run.workload.prompt_tokens) == ("gundam_m", 7, 3, 0)
    assert (run.dtype, run.cache, run.prefill_logits) == ("fp16", "static", "all")  # logits as remote_code's generate
    assert run.stages == ("vision", "decode")  # in the order they run
    assert load_run(["engine=remote_code", "prefill_logits=last"]).prefill_logits == "last"


@pytest.mark.parametrize(
    ("overrides", "grid"),
    [
        (["columns=2", "rows=1"], (2, 1)),
        (["columns=4"], (4, 1)),
        (["rows=4"], (1, 4)),
        (["columns=1", "rows=1"], (1, 1)),
        (["image_width_px=600", "image_height_px=640"], (1, 1)),
        (["image_width_px=2339", "image_height_px=1654"], (3, 2)),
        (["columns=null"], (2, 3)),
        (["image_width_px=600", "image_height_px=640", "untiled_up_to_px=0"], (2, 2)),
    ],
)
def test_grid_or_image(overrides, grid):
    page = load_run([f"workload.{override}" for override in overrides]).workload
    assert (page.columns, page.rows) == grid


def test_attention_tower_by_tower():
    mixed = load_run(["attention=flash", "attention.sam=eager"]).attention
    assert [mixed.name, *map(mixed.kernel, ("sam", "clip", "decoder"))] == ["mixed", "eager", "flash", "flash"]
    one = load_run(["attention.decoder=eager"]).attention
    assert [one.name, *map(one.kernel, ("sam", "clip", "decoder"))] == ["mixed", None, None, "eager"]
    assert load_run(["attention=flash", "attention.sam=flash"]).attention.name == "flash"


def test_hardware_is_chosen_by_name():
    assert load_run(["hardware=null"]).hardware is None
    assert load_run(["hardware=h200"]).hardware == catalog.load_hardware("h200")
    assert load_run(["hardware=h200", "hardware=null"]).hardware is None
    assert load_run(["hardware=null", "hardware=h200"]).hardware.name == "h200"
    assert load_run(["hardware=l4", "hardware=null", "hardware=h200"]).hardware.name == "h200"


def test_overrides_of_hardware():
    overrides = [
        "hardware.memory_bandwidth_bytes_per_second=3e12",
        "hardware.memory_bytes=96000000000",
        "hardware.matrix_flops_per_second.bf16=1e15",
        "hardware.vector_fp32_flops_per_second=null",
    ]
    gpu = load_run(["hardware=h200", *overrides]).hardware
    assert (gpu.name, gpu.memory_bandwidth_bytes_per_second, gpu.memory_bytes) == ("h200", 3e12, 96e9)
    assert (gpu.matrix_peak("bf16"), gpu.matrix_peak("fp16"), gpu.vector_fp32_flops_per_second) == (1e15, 989e12, None)
    assert gpu == catalog.load_hardware("h200", overrides)
    assert catalog.load_hardware("h200", overrides) is catalog.load_hardware("h200", list(overrides))  # composed once
    assert catalog.load_hardware("h200").memory_bytes == 141e9
    with pytest.raises(SpecError, match="^'memory_bytes=1': not an override of the hardware, as in hardware.memory_bytes=80e9$"):
        catalog.load_hardware("h200", ["memory_bytes=1"])


def test_of_two_choices_the_last_holds():
    run = load_run(["engine=transformers", "engine=remote_code", "dtype=fp16", "dtype=fp32", "hardware=l4", "hardware=h200"])
    assert (run.engine.name, run.dtype, run.hardware.name) == ("remote_code", "fp32", "h200")


ERRORS = {
    # unknown keys and choices
    "workload.no_such_key=1": "workload.no_such_key: unknown key; workload has .*batch_size, .*",
    "no_such_key=1": "no_such_key: unknown key; the config has model, engine, workload, attention, hardware, dtype, cache, .*, stages",
    "model.towers.sam.widht=96": "model.towers.sam.widht: unknown key; model.towers.sam has image_px, .*downsample_widths",
    "engine.fast=true": "engine.fast: unknown key; engine has name, .*",
    "dtype.kind=bf16": "dtype.kind: unknown key; dtype has no keys",
    "hydra.verbose=true": "hydra.verbose: unknown key; the config has .*",
    "hydra/launcher=basic": "hydra/launcher: unknown key; the config has .*",
    "hardware.memory_bytes=1": "hardware.memory_bytes: unknown key; hardware has no keys",
    "model=gpt": "model: 'gpt' is not one of deepseek_ocr, tiny_test",
    "attention=sparkle": "attention: 'sparkle' is not one of eager, flash, sdpa, vendor",
    "workload=huge": "workload: 'huge' is not one of base, gundam, gundam_m, large, small, tiny",
    "engine=null": "engine: None is not one of remote_code, transformers",
    "hardware=no_such_gpu": "hardware: 'no_such_gpu' is not one of a10, .*, h200, .*, v100_sxm_16gb",
    "hardware=h200 hardware.price=2": "hardware.price: unknown key; hardware has name, label, .*memory_bytes, sources",
    "hardware=h200 hardware.matrix_flops_per_second.fp8=1e15": "hardware.matrix_flops_per_second.fp8: unknown key; "
    "hardware.matrix_flops_per_second has bf16, fp16, tf32",
    "hardware=h200 hardware=null hardware.memory_bytes=1": "hardware.memory_bytes: unknown key; hardware has no keys",
    "attention.sam=sparkle": "attention.sam: 'sparkle' is not one of eager, flash, sdpa or null",
    "dtype=int8": "dtype: 'int8' is not one of bf16, fp16, fp32",
    "cache=sliding": "cache: 'sliding' is not one of dynamic, static",
    "prefill_logits=some": "prefill_logits: 'some' is not one of all, last",
    # wrong types
    "workload.batch_size=many": "workload.batch_size: 'many' is not a whole number",
    "workload.columns=2.5": "workload.columns: 2.5 is not a whole number or null",
    "workload.columns=true": "workload.columns: True is not a whole number or null",
    "workload.output_tokens=null": "workload.output_tokens: None is not a whole number",
    "workload.output_tokens=[1]": r"workload.output_tokens: \[1\] is not a whole number",
    "model.towers.sam.layers=12.0": "model.towers.sam.layers: 12.0 is not a whole number",
    "model.towers.sam.global_layers=2": r"model.towers.sam.global_layers: 2 is not a list of whole numbers",
    "model.towers.sam.global_layers=[2,true]": r"model.towers.sam.global_layers: \[2, True\] is not a list of whole numbers",
    "model.towers.sam=3": "model.towers.sam: 3 is not a mapping with the keys image_px, .*",
    "model.towers=null": r"model.towers: None is not a mapping of towers \(sam, clip, projector, decoder\) to dimensions",
    "hardware=h200 hardware.memory_bytes=large": "hardware.memory_bytes: 'large' is not a number",
    "hardware=h200 hardware.memory_bytes=true": "hardware.memory_bytes: True is not a number",
    "hardware=h200 hardware.memory_bytes=null": "hardware.memory_bytes: None is not a number",
    "hardware=h200 hardware.vector_fp32_flops_per_second=fast": "hardware.vector_fp32_flops_per_second: 'fast' is not a number or null",
    "hardware=h200 hardware.matrix_flops_per_second.bf16=fast": "hardware.matrix_flops_per_second.bf16: 'fast' is not a number",
    "hardware=h200 hardware.matrix_flops_per_second=9": "hardware.matrix_flops_per_second: 9 is not a mapping of dtypes to FLOPs a second",
    "hardware=h200 hardware.sources=book": "hardware.sources: 'book' is not a list of sources",
    "engine.chooses_logits=1": "engine.chooses_logits: 1 is not true or false",
    "attention.sam=3": "attention.sam: 3 is not one of eager, flash, sdpa or null",
    "model.label=3": "model.label: 3 is not text",
    "dtype=[bf16]": r"dtype: \['bf16'\] is not one of bf16, fp16, fp32",
    # values that no spec has
    "workload.batch_size=-3": "workload.batch_size: -3 is not a whole number from 1 to 65536",
    "workload.prompt_tokens=-1": "workload.prompt_tokens: -1 is not a whole number from 0 to .*",
    "workload.columns=0": "workload.columns: 0 is not a whole number from 1 to 10000",
    "workload.image_width_px=0": "workload.image_width_px: 0 is not a whole number of pixels from 1 to 1000000",
    "workload.image_height_px=99999999999999999999": "workload.image_height_px: 9{20} is not a whole number of pixels from .*",
    "workload.global_px=1000": "workload.global_px: 1000 is not a multiple of 16 .*",
    "workload=base workload.columns=2": "workload.columns x rows: 2 x 1 on mode 'base', which has no tiles; only 1 x 1 is possible",
    "hardware=h200 hardware.memory_bytes=-1": "hardware.memory_bytes: -1.0 is not a number above 0",
    "hardware=h200 hardware.memory_bandwidth_bytes_per_second=0": "hardware.memory_bandwidth_bytes_per_second: 0.0 is not a number above 0",
    "hardware=h200 hardware.memory_bytes=inf": "hardware.memory_bytes: inf is not a number above 0",
    "hardware=h200 hardware.matrix_flops_per_second.bf16=nan": "hardware.matrix_flops_per_second.bf16: nan is not a number above 0",
    "hardware=h200 hardware.vector_fp32_flops_per_second=0": "hardware.vector_fp32_flops_per_second: 0.0 is not a number above 0",
    "model.towers.sam.width=97": "model.towers.sam.width: 97 is not divisible by sam.heads = 12",
    "model.towers.clip.heads=3": "model.towers.clip.width: 1024 is not divisible by clip.heads = 3",
    "model.towers.decoder.heads=7": "model.towers.decoder.width: 1280 is not divisible by decoder.heads = 7",
    "model.towers.decoder.layers=0": "model.towers.decoder.layers: 0 is not a whole number of at least 1",
    "model.towers.decoder.experts_per_token=65": "model.towers.decoder.experts_per_token: 65 exceeds decoder.experts = 64",
    # towers that do not fit each other
    "model.towers.clip.width=512": "model.towers.clip.width: 512 is not sam.output_width = 1024",
    "model.towers.sam.downsample_widths=[512,512]": "model.towers.clip.width: 1024 is not sam.output_width = 512",
    "model.towers.projector.input_width=1024": r"model.towers.projector.input_width: 1024 is not clip.width \+ sam.output_width = 2048",
    "model.towers.decoder.width=1290": "model.towers.projector.output_width: 1280 is not decoder.width = 1290",
    # stages
    "stages=[]": r"stages: \[\] is not a list of one or more of vision, prefill, decode",
    "stages=vision": "stages: 'vision' is not a list of one or more of vision, prefill, decode",
    "stages=[vision,training]": "stages: 'training' is not one of vision, prefill, decode",
    "stages=[vision,vision]": "stages: 'vision' is named twice; .*",
    # what is no override, or more than one
    "workload.columns": "'workload.columns': not of the form key=value",
    "=3": "'=3': not of the form key=value, .*",
    "workload.columns=[": r"'workload.columns=\[': not of the form key=value",
    "+workload.extra=1": r"'\+workload.extra=1': not of the form key=value, with one value",
    "~workload.columns": "'~workload.columns': not of the form key=value, with one value",
    "workload.columns=1,2": "'workload.columns=1,2': not of the form key=value, with one value",
    "workload=[tiny,base]": r"workload: \['tiny', 'base'\] is not one of .*",
    "workload@page=tiny": "'workload@page=tiny': not of the form key=value, with one value",
    "workload.columns=${nothing}": r"workload.columns=\$\{nothing\}: .*'nothing' not found.*",
}


@pytest.mark.parametrize("overrides", ERRORS)
def test_errors_are_one_line_that_names_the_key(overrides):
    with pytest.raises(SpecError) as caught:
        load_run(overrides.split())
    assert re.fullmatch(ERRORS[overrides], str(caught.value)), str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # nothing of Hydra is shown


@pytest.fixture
def own_configs(tmp_path, monkeypatch):
    """A copy of the configs, to be edited: edit(file, old, new)."""
    shutil.copytree(catalog.config_dir(), tmp_path / "configs")
    monkeypatch.setattr(catalog, "config_dir", lambda: tmp_path / "configs")

    def edit(file, old, new):
        path = tmp_path / "configs" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("config.yaml", "dtype:", "dtpye:", "dtpye: unknown key; the config has model, .*"),
        ("config.yaml", "cache: dynamic", "", "cache: missing"),
        ("config.yaml", "batch_size: 1", "batch_sizes: 1", "workload.batch_sizes: unknown key; workload has .*"),
        ("model/deepseek_ocr.yaml", "window: 14", "windows: 14", "model.towers.sam.windows: unknown key; model.towers.sam has .*"),
        ("model/deepseek_ocr.yaml", "    window: 14\n", "", "model.towers.sam.window: missing"),
        (
            "model/deepseek_ocr.yaml",
            "  projector:",
            "  projectile:",
            "model.towers: 'projectile' is not one of sam, clip, projector, decoder",
        ),
        ("model/deepseek_ocr.yaml", "window: 14", "window: wide", "model.towers.sam.window: 'wide' is not a whole number"),
        ("engine/transformers.yaml", "chooses_logits: true", "chooses_logits: maybe", "engine.chooses_logits: 'maybe' is not true or false"),
        ("engine/transformers.yaml", "label:", "labels:", "engine.labels: unknown key; engine has .*"),
        ("attention/vendor.yaml", "decoder:", "llm:", "attention.llm: unknown key; attention has name, sam, clip, .*"),
        ("workload/gundam.yaml", "tile_px: 640", "tile_px: [640", "configs: .*expected.*"),
        ("config.yaml", "engine: transformers", "engine: vllm", "configs: .*engine/vllm.*"),
    ],
)
def test_errors_in_config_files(own_configs, file, old, new, message):
    own_configs(file, old, new)
    with pytest.raises(SpecError) as caught:
        load_run([])
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


def test_a_new_config_is_found_by_name(own_configs, tmp_path):
    shutil.copy(tmp_path / "configs/workload/gundam.yaml", tmp_path / "configs/workload/mine.yaml")
    own_configs("workload/mine.yaml", "name: gundam", "name: mine")
    assert load_run(["workload=mine"]).workload.mode == "mine"


def test_a_device_of_ones_own(own_configs, tmp_path):
    folder = tmp_path / "configs/hardware"
    (folder / "mine.yaml").write_text((folder / "l4.yaml").read_text().replace("name: l4", "name: mine"))
    (folder / "faster.yaml").write_text("defaults: [mine]\nname: faster\nmemory_bandwidth_bytes_per_second: 1.0e+12\n")
    (folder / "broken.yaml").write_text("name: [broken\n")
    assert catalog.load_hardware("mine") == load_run(["hardware=mine"]).hardware
    faster = catalog.load_hardware("faster")
    assert faster == load_run(["hardware=faster"]).hardware
    assert (faster.name, faster.memory_bandwidth_bytes_per_second, faster.memory_bytes) == ("faster", 1e12, 24e9)
    with pytest.raises(SpecError, match="^configs: .*expected"):
        catalog.load_hardware("broken")


@pytest.mark.parametrize("name", ["h200", "t4", "gaudi3", "mi300x"])
def test_a_device_is_the_same_alone_and_composed(name):
    assert catalog.load_hardware(name) == load_run([f"hardware={name}"]).hardware


def test_only_plain_values_leave():
    def check(value):
        if isinstance(value, tuple):
            for item in value:
                check(item)
        elif is_dataclass(value):
            for field in fields(value):
                check(getattr(value, field.name))
        else:
            assert type(value) in (int, float, str, bool, type(None)), value

    check(load_run(["hardware=h200"]))
    check(catalog.modes())


def test_sessions_are_threads():
    overrides = [[f"workload.columns={columns}", f"engine={engine}"] for columns in range(1, 7) for engine in catalog.names("engine")]
    with ThreadPoolExecutor(6) as pool:
        runs = list(pool.map(load_run, overrides))
    assert [[f"workload.columns={run.workload.columns}", f"engine={run.engine.name}"] for run in runs] == overrides


def test_a_caller_that_uses_hydra_keeps_its_own(tmp_path):
    from hydra import compose, initialize_config_dir

    (tmp_path / "own.yaml").write_text("answer: 42\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        load_run(["dtype=fp32"])
        with pytest.raises(SpecError):
            load_run(["no_such_key=1"])
        assert compose("own").answer == 42


def test_hydra_stays_in_one_place():
    users = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ocr_flops").rglob("*.py")
        if re.search(r"^\s*(import|from) (hydra|omegaconf)", path.read_text(), re.MULTILINE)
    }
    assert users <= {"ocr_flops/spec/overrides.py", "ocr_flops/measure/campaign.py", "ocr_flops/evidence/records/campaign.py"}


def test_importing_is_cheap():
    code = "import sys, ocr_flops.spec; print([m for m in ('hydra', 'omegaconf', 'polars', 'torch', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_folders_of_a_checkout():
    assert catalog.config_dir() == ROOT / "configs"
    assert catalog.notebook_dir() == ROOT / "notebooks"


def test_a_wheel_carries_configs_and_notebooks(tmp_path):
    pytest.importorskip("hatchling")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    ours |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").glob("*.py")}
    assert "configs/config.yaml" in ours
    assert {f"ocr_flops/{path}" for path in ours} <= inside
    assert not [path for path in inside if "__pycache__" in path or "__marimo__" in path or path.startswith(("tests/", "configs/"))]
    code = "from ocr_flops.spec.run_spec import load_run; from ocr_flops.spec.catalog import *; print(config_dir(), notebook_dir(), load_run(['workload=tiny']).workload.image_tokens)"
    site = tmp_path / "site"
    shown = subprocess.run([sys.executable, "-c", code], cwd=site, capture_output=True, text=True, check=True).stdout.split()
    assert shown[0] == str(site / "ocr_flops/configs")
    assert shown[1] in (str(site / "ocr_flops/notebooks"), str(site / "notebooks"))  # the latter only while there are no notebooks
    assert shown[2] == "73"


def test_python_and_command_line_agree():
    page = Workload.from_image(1000, 3000, "gundam_m", output_tokens=5)
    same = ["workload=gundam_m", "workload.image_width_px=1000", "workload.image_height_px=3000", "workload.output_tokens=5"]
    composed = load_run(same).workload
    assert all(getattr(page, field.name) == getattr(composed, field.name) for field in fields(Workload))
