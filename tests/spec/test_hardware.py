"""Devices: every stored figure is a dense one with a named source, and a sparse one in its place would be noticed."""

import re
from dataclasses import FrozenInstanceError, replace
from urllib.parse import urlsplit

import pytest

import ocr_flops
from ocr_flops.errors import SpecError
from ocr_flops.spec import catalog
from ocr_flops.spec.specs import HardwareSpec

NAMES = catalog.names("hardware")
DENSE = {  # published dense peaks, read apart from configs/hardware
    "a100_40gb": {"bf16": 312e12, "tf32": 156e12, "fp32": 19.5e12},
    "a100_80gb_pcie": {"bf16": 312e12},
    "a100_80gb_sxm": {"bf16": 312e12},
    "h100_sxm": {"bf16": 989.4e12, "fp32": 66.9e12},
    "h200": {"bf16": 989.4e12},
    "l4": {"bf16": 121e12, "fp32": 30.3e12},
    "t4": {"fp16": 65e12, "fp32": 8.1e12},
    "v100_sxm": {"fp16": 125e12, "fp32": 15.7e12},
    "l40s": {"bf16": 362e12},
    "rtx_4090": {"bf16": 165.2e12, "fp32": 82.6e12},
    "mi300x": {"bf16": 1307.4e12, "fp32": 163.4e12},
}
WANTED = """
t4 v100_sxm a10 a100_40gb a100_80gb_sxm a30 l4 l40s h20 h100_pcie h100_sxm h200 gh200 b200 mi250x mi300x mi325x gaudi3
rtx_3090 rtx_4090 rtx_5090 rtx_a6000 rtx_6000_ada rtx_pro_6000_blackwell
"""
MARKED = re.compile(r"dense|halved|w/o sparsity|non-sparse|[Ss]parsity is not considered")


def complaints(gpu: HardwareSpec) -> list[str]:
    """What is implausible about a device's figures: above all sparse peaks, which are twice the dense ones."""
    found = []
    matrix = dict(gpu.matrix_flops_per_second)
    half = matrix.get("bf16", matrix.get("fp16"))
    if gpu.manufacturer == "NVIDIA":
        if "bf16" in matrix and matrix.get("fp16", matrix["bf16"]) != matrix["bf16"]:
            found.append("bf16 and fp16 differ")
        if "bf16" in matrix and "tf32" in matrix and abs(2 * matrix["tf32"] / matrix["bf16"] - 1) > 0.03:
            found.append("tf32 is not half of bf16")
    if "fp8" in matrix and gpu.name != "gaudi3" and abs(matrix["fp8"] / matrix["bf16"] / 2 - 1) > 0.03:
        found.append("fp8 is not twice bf16")
    for dtype, peak in DENSE.get(gpu.name, {}).items():
        if abs(gpu.matrix_peak(dtype) / peak - 1) > 0.015:
            found.append(f"{dtype} is not the published {peak:.4g}")
    if gpu.vector_fp32_flops_per_second and not 1.95 <= half / gpu.vector_fp32_flops_per_second <= 32:
        found.append("matrix and vector peaks do not fit each other")
    if not 10 <= half / gpu.memory_bandwidth_bytes_per_second <= 500:
        found.append("matrix peak and bandwidth do not fit each other")
    if not 0.1e12 <= gpu.memory_bandwidth_bytes_per_second <= 20e12:
        found.append("bandwidth")
    if not 8e9 <= gpu.memory_bytes <= 400e9:
        found.append("memory")
    return found


def figures(gpu: HardwareSpec) -> set[str]:
    single = ("vector_fp32_flops_per_second", "memory_bandwidth_bytes_per_second", "memory_bytes", "board_watts")
    matrix = {f"matrix_flops_per_second.{dtype}" for dtype, _ in gpu.matrix_flops_per_second}
    return matrix | {"flash_attention"} | {name for name in single if getattr(gpu, name)}


def scaled(gpu: HardwareSpec, factor: float, *dtypes: str) -> HardwareSpec:
    """The device with the matrix peaks of some dtypes (all by default) multiplied."""
    return replace(
        gpu,
        matrix_flops_per_second=tuple(
            (dtype, peak * factor if not dtypes or dtype in dtypes else peak) for dtype, peak in gpu.matrix_flops_per_second
        ),
    )


def test_the_devices_a_user_may_own():
    assert set(NAMES) >= set(WANTED.split())


@pytest.mark.parametrize("name", NAMES)
def test_figures(name):
    gpu = catalog.load_hardware(name)
    assert gpu.name == name
    assert gpu.label.startswith(f"{gpu.manufacturer} ")
    assert gpu.manufacturer in ("NVIDIA", "AMD", "Intel")
    assert not complaints(gpu)
    assert gpu.matrix_peak("fp32") > 0  # every engine multiplies some matrices in fp32, whatever the dtype
    assert {dtype for dtype, _ in gpu.matrix_flops_per_second} & {"bf16", "fp16"}
    assert isinstance(hash(gpu), int)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_source(name):
    gpu = catalog.load_hardware(name)
    assert {figure for source in gpu.sources for figure in source.figures} == figures(gpu)
    for source in gpu.sources:
        assert source.figures
        assert min(len(source.document), len(source.locator), len(source.marking)) > 5
        link = urlsplit(source.link)
        assert link.scheme == "https" and "." in link.netloc and link.path not in ("", "/"), source.link
        if link.netloc == "github.com":
            assert re.match(r"/[^/]+/[^/]+/blob/[0-9a-f]{40}/.", link.path), source.link
    for figure in figures(gpu):
        markings = [source.marking for source in gpu.sources if figure in source.figures]
        assert not figure.startswith("matrix") or any(map(MARKED.search, markings)), figure


@pytest.mark.parametrize("name", NAMES)
def test_figures_that_sources_dispute_keep_both_values(name):
    gpu = catalog.load_hardware(name)
    stored = {f"matrix_flops_per_second.{dtype}": peak for dtype, peak in gpu.matrix_flops_per_second}
    for figure, (low, high) in gpu.disputed:
        assert low == stored.get(figure, getattr(gpu, figure, None)) and high < 1.1 * low
    if any(re.search("(the|of which the) lower|Others print", source.marking) for source in gpu.sources):
        assert gpu.disputed
    assert gpu.at_higher_figures == replace(gpu, disputed=()) or gpu.disputed


@pytest.mark.parametrize(("figure", "values"), [("clock", (1.0, 2.0)), ("memory_bytes", (2.0, 1.0)), ("memory_bytes", (1.0,))])
def test_disputed_figures_are_a_figure_and_two_values(figure, values):
    with pytest.raises(SpecError, match=r"^hardware.disputed.* is not (one of|a number above 0 and a higher one)"):
        replace(catalog.load_hardware("t4"), disputed=((figure, values),))


def test_which_devices_have_a_flash_attention_kernel():
    without = {name for name in NAMES if not catalog.load_hardware(name).flash_attention}
    assert without == {"mi100", "quadro_rtx_6000", "rtx_2080_ti", "t4", "v100_pcie", "v100_sxm", "v100_sxm_16gb"}


@pytest.mark.parametrize("name", DENSE)
def test_sparse_figures_are_noticed(name):
    gpu = catalog.load_hardware(name)
    assert complaints(scaled(gpu, 2))
    assert complaints(scaled(gpu, 0.5))


@pytest.mark.parametrize("name", [name for name in NAMES if catalog.load_hardware(name).manufacturer == "NVIDIA"])
def test_one_sparse_figure_among_dense_ones_is_noticed(name):
    gpu = catalog.load_hardware(name)
    dtypes = dict(gpu.matrix_flops_per_second)
    if len(dtypes) > 1:
        assert all(complaints(scaled(gpu, 2, dtype)) for dtype in dtypes)


def test_implausible_memory_is_noticed():
    gpu = catalog.load_hardware("h200")
    assert complaints(replace(gpu, memory_bandwidth_bytes_per_second=4.8e9))
    assert complaints(replace(gpu, memory_bytes=141.0))


def test_matrix_peak_by_dtype():
    h200, mi300x, t4 = map(catalog.load_hardware, ("h200", "mi300x", "t4"))
    assert (h200.matrix_peak("bf16"), h200.matrix_peak("tf32")) == (989e12, 494.5e12)
    assert h200.matrix_peak("fp32") == h200.vector_fp32_flops_per_second == 67e12  # the matrix units take no fp32
    assert mi300x.matrix_peak("fp32") == dict(mi300x.matrix_flops_per_second)["fp32"]
    assert (t4.matrix_peak("fp16"), t4.matrix_peak("fp32")) == (65e12, 8.1e12)
    with pytest.raises(SpecError) as caught:
        t4.matrix_peak("bf16")
    assert str(caught.value) == "hardware.t4.matrix_flops_per_second.bf16: NVIDIA T4 (16 GB) has no such figure, only of fp16, fp32"
    no_vector = replace(h200, vector_fp32_flops_per_second=None)
    with pytest.raises(SpecError, match="only of bf16, fp16$"):
        no_vector.matrix_peak("fp32")


@pytest.mark.parametrize("name", ["NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"])  # drivers before 470 leave out the manufacturer
def test_a_device_is_recognised_by_the_name_of_its_driver(name):
    assert catalog.hardware_of_device(name) is catalog.load_hardware("a100_80gb_sxm")


@pytest.mark.parametrize("name", ["NVIDIA H200 MIG 1g.18gb", "", None])
def test_a_device_that_no_config_names(name):
    assert catalog.hardware_of_device(name) is None


def test_no_two_devices_share_a_name():
    found = [device for name in NAMES for device in catalog.load_hardware(name).device_names]
    assert len(found) == len(set(found)) > 0


def test_what_a_spec_refuses():
    gpu = catalog.load_hardware("h200")
    for field in ("vector_fp32_flops_per_second", "memory_bandwidth_bytes_per_second", "memory_bytes"):
        for value in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(SpecError, match=rf"^hardware\.{field}: .* is not a number from 1 to 1e\+24$"):
                replace(gpu, **{field: value})
    with pytest.raises(SpecError, match=r"^hardware\.matrix_flops_per_second\.bf16: -1\.0 is not a number from 1 to 1e\+24$"):
        replace(gpu, matrix_flops_per_second=(("bf16", -1.0),))
    with pytest.raises(SpecError, match=r"^hardware\.matrix_flops_per_second: 'int4' is not one of bf16, fp16, fp32, tf32, fp8$"):
        replace(gpu, matrix_flops_per_second=(("int4", 1e15),))
    with pytest.raises(SpecError, match=r"^hardware\.matrix_flops_per_second: empty"):
        replace(gpu, matrix_flops_per_second=(), vector_fp32_flops_per_second=None)
    with pytest.raises(SpecError, match="'rumour' is not one of manufacturer, secondary"):
        replace(gpu.sources[0], kind="rumour")
    with pytest.raises(FrozenInstanceError):
        gpu.memory_bytes = 1e9


def test_public_names():
    assert ocr_flops.load_hardware("l4") is catalog.load_hardware("l4")
    assert ocr_flops.HardwareSpec is HardwareSpec
    with pytest.raises(SpecError) as caught:
        ocr_flops.load_hardware("gtx_9000")
    assert str(caught.value).startswith(f"hardware: 'gtx_9000' is not one of {len(NAMES)} names; nearest: rtx_")
