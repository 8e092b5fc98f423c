"""Which config of `configs/hardware` a device is, by the name that its driver gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocr_flops.spec.specs import HardwareSpec

MAKER = "NVIDIA "  # which drivers before 470 left out
NAMES = {  # as torch.cuda.get_device_name() has them, but for MAKER; a name that is not here is a device without figures
    "A10": "a10",
    "A30": "a30",
    "A40": "a40",
    "A100-SXM4-40GB": "a100_40gb",
    "A100-PCIE-40GB": "a100_40gb",
    "A100-SXM4-80GB": "a100_80gb_sxm",
    "A100 80GB PCIe": "a100_80gb_pcie",
    "B200": "b200",
    "B300 SXM6 AC": "b300",
    "GB200": "gb200",
    "GB300": "gb300",
    "GH200 480GB": "gh200",
    "GH200 144G HBM3e": "gh200_144gb",
    "H20": "h20",
    "H100 80GB HBM3": "h100_sxm",
    "H100 PCIe": "h100_pcie",
    "H200": "h200",
    "H200 NVL": "h200_nvl",
    "L4": "l4",
    "L40": "l40",
    "L40S": "l40s",
    "Quadro RTX 6000": "quadro_rtx_6000",
    "GeForce RTX 2080 Ti": "rtx_2080_ti",
    "GeForce RTX 3090": "rtx_3090",
    "GeForce RTX 3090 Ti": "rtx_3090_ti",
    "GeForce RTX 4080": "rtx_4080",
    "GeForce RTX 4090": "rtx_4090",
    "GeForce RTX 5090": "rtx_5090",
    "RTX 5000 Ada Generation": "rtx_5000_ada",
    "RTX 6000 Ada Generation": "rtx_6000_ada",
    "RTX A4000": "rtx_a4000",
    "RTX A6000": "rtx_a6000",
    "RTX PRO 6000 Blackwell Workstation Edition": "rtx_pro_6000_blackwell",
    "Tesla T4": "t4",
    "Tesla V100-PCIE-16GB": "v100_pcie",
    "Tesla V100-SXM2-16GB": "v100_sxm_16gb",
    "Tesla V100-SXM2-32GB": "v100_sxm",
    "AMD Instinct MI100": "mi100",
    "AMD Instinct MI210": "mi210",
    "AMD Instinct MI300A": "mi300a",
    "AMD Instinct MI300X": "mi300x",
    "AMD Instinct MI325X": "mi325x",
    "AMD Instinct MI350X": "mi350x",
    "AMD Instinct MI355X": "mi355x",
}


def hardware(device_name: str | None) -> HardwareSpec | None:
    """The figures of a device; None where `configs/hardware` has none of it."""
    from ocr_flops.spec import load_hardware

    name = (device_name or "").removeprefix(MAKER)
    return load_hardware(NAMES[name]) if name in NAMES else None
