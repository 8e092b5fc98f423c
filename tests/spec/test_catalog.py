"""Names of configs as specs: what they say, that Hydra would say the same, and that a wheel carries them."""

import shutil
import subprocess
import sys
import zipfile
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

import ocr_flops as of
from ocr_flops.errors import SpecError
from ocr_flops.spec import catalog, reading
from ocr_flops.spec.overrides import GROUPS, compose
from ocr_flops.spec.run_spec import load_run
from ocr_flops.spec.specs import AttentionSpec

ROOT = Path(__file__).parents[2]


def test_names_of_groups():
    assert {"deepseek_ocr", "tiny_test", "glm_ocr"} <= set(catalog.names("model"))
    assert catalog.names("engine") == ("remote_code", "sglang", "transformers", "vllm")
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
    assert catalog.load_model("deepseek_ocr") is model  # made once
    assert isinstance(hash(model), int)
    with pytest.raises(FrozenInstanceError):
        model.name = "other"


def test_the_second_model_shares_no_dimension():
    for ours, tiny in zip(catalog.load_model().towers, catalog.load_model("tiny_test").towers, strict=True):
        same = {field.name for field in fields(ours) if getattr(ours, field.name) == getattr(tiny, field.name)}
        assert same <= {"channels", "patch_px", "dense_layers", "shared_experts"}, ours.tower


def test_engines_and_attention():
    ours, remote = catalog.load_engine(), catalog.load_engine("remote_code")
    assert (ours.name, ours.prefill_logits, ours.runnable_attention) == ("transformers", "last", ("eager", "sdpa"))
    assert (remote.prefill_logits, remote.kernel("decoder"), remote.runnable_attention) == ("all", "eager", ())
    model, towers = catalog.load_model(), ("sam", "clip", "decoder")
    mixed = AttentionSpec("vendor", {"sam": "sdpa", "clip": "sdpa", "decoder": "eager"})
    assert catalog.load_attention("vendor").resolved(model, remote) == mixed
    assert catalog.load_attention("flash").resolved(model, ours) == AttentionSpec("flash", dict.fromkeys(towers, "flash"))


LOADERS = [catalog.load_model, catalog.load_engine, catalog.load_attention, catalog.load_mode, catalog.load_hardware]


@pytest.mark.parametrize("load", LOADERS)
def test_an_unknown_name(load):
    with pytest.raises(SpecError, match=r"^(model|engine|attention|workload|hardware): 'nope' is not one of \w+, "):
        load("nope")


def test_models_and_devices_take_overrides():
    model = catalog.load_model("tiny_test", ["model.towers.sam.width=48", "model.towers.sam.global_layers=[0,2]", "model.label=mine"])
    assert (model.tower("sam").width, model.tower("sam").global_layers, model.name) == (48, (0, 2), "tiny_test")
    assert model.label == "mine (changed: label, sam.width, sam.global_layers)"
    assert catalog.load_model("tiny_test").tower("sam").width == 96
    wider = ["hardware.memory_bandwidth_bytes_per_second=3e12"]
    assert catalog.load_hardware("h200", wider).memory_bandwidth_bytes_per_second == 3e12
    assert catalog.load_hardware("h200", wider) is catalog.load_hardware("h200", list(wider))  # made once
    with pytest.raises(SpecError, match="^'workload.columns=2': not an override of the model"):
        catalog.load_model("tiny_test", ["workload.columns=2"])
    with pytest.raises(SpecError, match="^'memory_bytes=1': not an override of the hardware, as in hardware.memory_bytes=80e9$"):
        catalog.load_hardware("h200", ["memory_bytes=1"])


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.verification)])
@pytest.mark.parametrize("group", GROUPS)
def test_hydra_composes_what_the_catalog_reads(group, every):
    for name in catalog.names(group)[::every]:
        assert catalog.group_config(group, name) == compose([f"{group}={name}"])[group], name


def test_specs_of_names_need_neither_hydra_nor_numpy():
    unwanted = ("hydra", "omegaconf", "numpy", "polars", "pydantic", "torch", "transformers")
    code = f"import sys, ocr_flops as of; of.load_model(), of.load_mode('base'); print([m for m in {unwanted} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.fixture
def own_configs(tmp_path, monkeypatch):
    """A copy of the configs, in which a test may write."""
    folder = tmp_path / "configs"
    shutil.copytree(catalog.config_dir(), folder)
    for module in (reading, catalog):
        monkeypatch.setattr(module, "config_dir", lambda: folder)
    return folder


def test_a_new_config_is_found_by_name(own_configs):
    gundam = (own_configs / "workload/gundam.yaml").read_text()
    (own_configs / "workload/mine.yaml").write_text(gundam.replace("name: gundam", "name: mine"))
    assert catalog.load_mode("mine").name == "mine"
    assert load_run(["workload=mine"]).workload.mode == "mine"


def test_a_device_of_ones_own(own_configs):
    l4, folder = (own_configs / "hardware/l4.yaml").read_text(), own_configs / "hardware"
    mine = l4.replace("name: l4", "name: mine").replace("[L4]", "[Mine 9000]").replace("memory_bytes: 24.0e+09", "memory_bytes: 32e9")
    (folder / "mine.yaml").write_text(mine.partition("sources:")[0])
    (folder / "faster.yaml").write_text("defaults: [mine]\nname: faster\nmemory_bandwidth_bytes_per_second: 1.0e+12\n")
    assert catalog.load_hardware("mine") == load_run(["hardware=mine"]).hardware == catalog.hardware_of_device("NVIDIA Mine 9000")
    times = [of.estimate(of.load_model(), of.Workload.from_grid(2, 1)).on(of.load_hardware(name)).ttft_seconds for name in ("mine", "l4")]
    assert times[0] == times[1] > 0  # the same rates
    faster = catalog.load_hardware("faster")
    assert faster == load_run(["hardware=faster"]).hardware
    assert (faster.name, faster.memory_bandwidth_bytes_per_second, faster.memory_bytes) == ("faster", 1e12, 32e9)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("workload/gundam.yaml", "tile_px: 640", "tile_px: [640", "^configs: .*expected"),
        ("workload/gundam.yaml", "tile_px", "tiles_px", r"^workload.tiles_px: unknown key; workload has .*tile_px"),
        ("config.yaml", "dtype:", "dtpye:", "^dtpye: unknown key; the config has 11 names; nearest: dtype"),
        ("config.yaml", "cache: dynamic", "", "^cache: missing$"),
        ("config.yaml", "batch_size: 1", "batch_sizes: 1", r"^workload.batch_sizes: unknown key; workload has "),
        ("config.yaml", "engine: transformers", "engine: vlm", "^configs: .*engine/vlm"),
    ],
)
def test_a_config_file_with_an_error(own_configs, file, old, new, message):
    text = (own_configs / file).read_text()
    assert old in text
    (own_configs / file).write_text(text.replace(old, new, 1))
    with pytest.raises(SpecError, match=message) as caught:
        load_run([])
    assert "\n" not in str(caught.value)
    if file.startswith("workload"):
        catalog.load_mode.cache_clear()
        with pytest.raises(SpecError, match=r"^(configs: .*expected|workload.tile_px: missing)"):
            catalog.load_mode("gundam")


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
    code = "from ocr_flops.spec.catalog import *; print(config_dir(), notebook_dir(), load_mode('tiny').global_px)"
    site = tmp_path / "site"
    shown = subprocess.run([sys.executable, "-c", code], cwd=site, capture_output=True, text=True, check=True).stdout.split()
    assert shown == [str(site / "ocr_flops/configs"), str(site / "ocr_flops/notebooks"), "512"]
