"""Overrides as Hydra composes them: what they change, what is refused, and that nothing of Hydra shows."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_flops.errors import SpecError
from ocr_flops.spec import catalog
from ocr_flops.spec.run_spec import load_run

ROOT = Path(__file__).parents[2]

ERRORS = {
    # unknown keys and choices
    "workload.no_such_key=1": "workload.no_such_key: unknown key; workload has .*batch_size.*",
    "no_such_key=1": "no_such_key: unknown key; the config has model, engine, workload, attention, hardware, host, efficiency, dtype, cache, .*, stages",
    "model.towers.sam.widht=96": "model.towers.sam.widht: unknown key; model.towers.sam has 11 names; nearest: width",
    "dtype.kind=bf16": "dtype.kind: unknown key; dtype has no keys",
    "hydra.verbose=true": "hydra.verbose: unknown key; the config has .*",
    "hydra/launcher=basic": "hydra/launcher: unknown key; the config has .*",
    "hardware.memory_bytes=1": "hardware.memory_bytes: unknown key; hardware has no keys; choose one by name too",
    "model=gpt": "model: 'gpt' is not one of deepseek_ocr, deepseek_ocr2, .*",
    "attention=sparkle": "attention: 'sparkle' is not one of eager, flash, sdpa, vendor",
    "engine=null": "engine: None is not one of remote_code, sglang, transformers, vllm",
    "hardware=no_such_gpu": "hardware: 'no_such_gpu' is not one of a10, .*, h200, .*, v100_sxm_16gb",
    "hardware=h200 hardware.matrix_flops_per_second.int4=1e15": "hardware.matrix_flops_per_second.int4: unknown key; "
    "hardware.matrix_flops_per_second has bf16, fp16, tf32, fp8",
    "hardware=h200 hardware=null hardware.memory_bytes=1": "hardware.memory_bytes: unknown key; hardware has no keys; choose one by name too",
    # what is no override, or more than one
    "workload.columns": "'workload.columns': not of the form key=value",
    "hardware=l4 hardware.segment=datacenter": "hardware.segment: 'datacenter' is not one of data-centre, workstation, desktop",
    "mode=gundam": "mode: unknown key; the config has 11 names; nearest: model; gundam is chosen as workload=gundam",
    "a100_40gb=1.8": "a100_40gb: unknown key; .*without blanks: --price a100_40gb=1.8,l4=0.8",
    "=3": "'=3': not of the form key=value, .*",
    "workload.columns=[": r"'workload.columns=\[': not of the form key=value",
    "+workload.extra=1": r"'\+workload.extra=1': not of the form key=value, with one value",
    "~workload.columns": "'~workload.columns': not of the form key=value, with one value",
    "workload.columns=1,2": "'workload.columns=1,2': not of the form key=value, with one value",
    "workload=[tiny,base]": r"workload: \['tiny', 'base'\] is not one of .*",
    "workload@page=tiny": "'workload@page=tiny': not of the form key=value, with one value",
    "workload.columns=${oc.env:HOME}": r"'workload.columns=\$\{oc.env:HOME\}': an override has no interpolation; write the value itself",
    "workload.columns=" + "[" * 300 + "]" * 300: r"workload.columns=\[+...: more than 50 brackets",
    "hardware=h100": "hardware: 'h100' is not one of .* names; nearest: h100_pcie, h100_sxm",
    "workload.colums=2": "workload.colums: unknown key; workload has .*columns.*",
    "model.towers.decoder.layers=2147483647": "model.towers.decoder.layers: 2147483647 is not a whole number from 1 to 1000",
    "hardware=l4 hardware.memory_bandwidth_bytes_per_second=1e-308": "hardware.memory_bandwidth_bytes_per_second: 1e-308 is not a number from .*",
    # values that Hydra takes and specs refuse
    "attention.sam=sparkle": "attention.sam: 'sparkle' is not one of eager, flash, sdpa or null",
    "workload.image_height_px=99999999999999999999 workload.image_width_px=9": "workload.image_height_px: 9{20} is not a whole number of pixels from .*",
    f"workload.tile_px={'9' * 400}": "workload.tile_px: 9{400} is not a whole number from 0 to .*",
    "hardware=h200 hardware.memory_bytes=1e400": "hardware.memory_bytes: inf is not a number from 1 to 1e\\+24",
}


@pytest.mark.parametrize("overrides", ERRORS)
def test_errors_are_one_line_that_names_the_key(overrides):
    with pytest.raises(SpecError) as caught:
        load_run(overrides.split())
    assert re.fullmatch(ERRORS[overrides], str(caught.value)), str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # nothing of Hydra is shown


KEYS = (
    "workload.columns",
    "workload",
    "model.towers",
    "attention.sam",
    "engine.kernels",
    "dtype",
    "stages",
    "hydra.run.dir",
    "",
    "..",
    "a@b",
)
VALUES = (
    "1",
    "nan",
    "null",
    "[1,[2]]",
    "{a: 1}",
    "{null: 1}",
    "${workload}",
    "${oc.env:NOPE}",
    "${",
    "'",
    "???",
    "range(1,5)",
    "[vision,{}]",
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(("", "", "+", "~")), st.sampled_from(KEYS), st.sampled_from(VALUES) | st.text(max_size=8)), max_size=3
    )
)
def test_no_overrides_give_a_traceback(overrides):
    try:
        load_run([f"{sign}{key}={value}" for sign, key, value in overrides])
    except SpecError as error:
        assert "\n" not in str(error)


def test_of_two_choices_the_last_holds():
    run = load_run(["engine=transformers", "engine=remote_code", "dtype=fp16", "dtype=fp32", "hardware=l4", "hardware=h200"])
    assert (run.engine.name, run.dtype, run.hardware.name) == ("remote_code", "fp32", "h200")


@pytest.mark.parametrize(
    ("chosen", "name"),
    [
        (["null"], None),
        (["h200"], "h200"),
        (["h200", "null"], None),
        (["null", "h200"], "h200"),
        (["l4", "null", "h200"], "h200"),
    ],
)
def test_hardware_may_be_none(chosen, name):
    found = load_run([f"hardware={one}" for one in chosen]).hardware
    assert found == (None if name is None else catalog.load_hardware(name))


def test_overrides_of_hardware():
    overrides = [
        "hardware.memory_bandwidth_bytes_per_second=3e12",
        "hardware.memory_bytes=96000000000",
        "hardware.matrix_flops_per_second.bf16=1e15",
        "hardware.vector_fp32_flops_per_second=null",
    ]
    gpu = load_run(["hardware=h200", *overrides]).hardware
    changed = "memory_bandwidth_bytes_per_second, memory_bytes, vector_fp32_flops_per_second, matrix_flops_per_second.bf16"
    assert set(gpu.changed) == set(changed.split(", "))
    assert gpu.label == f"NVIDIA H200 SXM (141 GB) (changed: {', '.join(gpu.changed)})" and gpu.title.startswith("h200 (changed: ")
    assert (gpu.name, gpu.memory_bandwidth_bytes_per_second, gpu.memory_bytes) == ("h200", 3e12, 96e9)
    assert (gpu.matrix_peak("bf16"), gpu.matrix_peak("fp16"), gpu.vector_fp32_flops_per_second) == (1e15, 989e12, None)
    assert gpu == catalog.load_hardware("h200", overrides)
    assert catalog.load_hardware("h200").memory_bytes == 141e9


def test_names_are_known_in_any_case():
    run = load_run(["hardware=L4", "attention=Eager", "dtype=FP16", "workload=Base"])
    assert (run.hardware, run.attention.name, run.dtype, run.workload.mode) == (catalog.load_hardware("L4"), "eager", "fp16", "base")


def test_a_config_may_be_a_file_of_ones_own(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text((ROOT / "configs/hardware/l4.yaml").read_text().replace("name: l4", "name: mine"))
    run = load_run([f"hardware={mine}", "hardware.memory_bytes=48e9"])
    assert (run.hardware.name, run.hardware.title, run.hardware.memory_bytes) == ("mine", "mine", 48e9)
    assert catalog.load_hardware(str(mine)).memory_bytes == 24e9
    mine.write_text((ROOT / "configs/hardware/l4.yaml").read_text().replace("24.0e+09", "48.0e+09"))
    assert load_run([f"hardware={mine}"]).hardware.title == "l4 (changed: memory_bytes)"  # nor can a file pretend
    (tmp_path / "two words").mkdir()
    (tmp_path / "two words" / "Mine.yaml").write_text(mine.read_text())
    assert load_run([f"hardware='{tmp_path}/two words/Mine.yaml'"]).hardware.memory_bytes == 48e9
    mine.write_text("name: mine\nlabel: Mine\n")
    with pytest.raises(SpecError, match="^hardware.manufacturer, hardware.segment, .*hardware.memory_bytes: missing$"):
        load_run([f"hardware={mine}"])
    with pytest.raises(SpecError, match="^hardware: there is no file /no/mine.yaml$"):
        load_run(["hardware=/no/mine.yaml"])


def test_a_config_cannot_be_given_the_name_of_another():
    with pytest.raises(SpecError, match="^hardware.name: is the name of the config itself; choose another as in hardware="):
        load_run(["hardware=l4", "hardware.name=h200"])


def test_sessions_are_threads():
    overrides = [[f"workload.columns={columns}", f"engine={engine}"] for columns in (1, 2, 3) for engine in catalog.names("engine")]
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


def test_hydra_stays_where_command_lines_and_campaigns_are_composed():
    users = {
        path.relative_to(ROOT / "ocr_flops").as_posix()
        for path in (ROOT / "ocr_flops").rglob("*.py")
        if re.search(r"^\s*(import|from) (hydra|omegaconf)", path.read_text(), re.MULTILINE)
    }
    assert users - {"evidence/records/campaign.py"} == {"spec/overrides.py"}
