"""The machine that the worker runs on: devices, precisions, driver and clocks, as far as they can be read; needs torch alone."""

import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ocr_flops import __version__

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
QUERIED = {  # nvidia-smi's names: ours
    "driver_version": "driver",
    "clocks.sm": "sm_mhz",
    "clocks.mem": "memory_mhz",
    "clocks.max.sm": "max_sm_mhz",
    "clocks.max.mem": "max_memory_mhz",
    "power.limit": "power_limit_watts",
    "temperature.gpu": "temperature_celsius",
    "utilization.gpu": "utilization_percent",
    "memory.used": "used_memory_mib",
}
PATIENCE_SECONDS = 10
FLASH = "flash_attention_2"  # transformers' name of flash-attn's kernels
DRIVER = Path("/proc/driver/nvidia/version")  # the kernel module's own words, where nvidia-smi is not installed


def now() -> str:
    """This moment, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def package_version(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def resolve_device(device: str, is_timed: bool = False) -> str:
    """The device that runs: "auto" is cuda where there is one, else meta; cpu for what is timed. RuntimeError: no cuda is there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu" if is_timed else "meta"
    if device == "cuda" and not torch.cuda.is_available():
        choice = "cpu, or run where there is one" if is_timed else "meta (exact FLOPs, no GPU) or cpu"
        raise RuntimeError(f"device: 'cuda' is not available here; choose {choice}")
    return device


def need_flash(tower: str, device: str, instead: str) -> None:
    """Checks that flash-attn's kernels are here.

    Args:
        tower: that is to run them.
        device: "meta", "cpu" or "cuda".
        instead: the attention to choose otherwise.

    Raises:
        ValueError: they are not.
    """
    from transformers.utils import is_flash_attn_2_available

    if device != "cuda" or not is_flash_attn_2_available():
        needed = "the package flash-attn where the worker runs" if device == "cuda" else "a CUDA device"
        raise ValueError(f"kernel missing: attention.{tower}: 'flash' cannot be run without {needed}; choose {instead}")


def device_name(device: str) -> str:
    """A device as its manufacturer calls it, as far as the system knows."""
    return torch.cuda.get_device_name() if device == "cuda" else _cpu_name() if device == "cpu" else device


def device_facts(requested: str) -> dict[str, Any]:
    """What a timed run would run on, and by which versions; builds nothing, and transformers is not imported. Errors as of
    `resolve_device`."""
    device = resolve_device(requested, is_timed=True)
    versions = {"torch": torch.__version__, "transformers": package_version("transformers"), "ocr_flops": __version__}
    return {"device": device, "device_name": device_name(device), **versions}


def machine(device: str) -> dict[str, Any]:
    """What stays the same during a run: threads (of the CPU's operators), float32_matmul_precision, and on cuda memory_bytes, capability,
    driver and cuda, hip and cudnn (versions); null elsewhere, and where they cannot be read."""
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "float32_matmul_precision": torch.get_float32_matmul_precision()}
    facts = dict.fromkeys(("memory_bytes", "capability", "driver", "cuda", "hip", "cudnn"))
    if device == "cuda":
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        facts = {
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "driver": (clocks(device) or {}).get("driver") or _driver(),
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found | facts


def gpu_id(number: int) -> str | None:
    """A GPU by the name that its driver tells it from all others by; None where torch does not say."""
    uuid = getattr(torch.cuda.get_device_properties(number), "uuid", None)
    return None if uuid is None else f"GPU-{uuid}"


def clocks(device: str) -> dict[str, Any] | None:
    """Driver, clocks, power limit, temperature and use at this moment, as nvidia-smi reads them; None where it cannot be asked."""
    if device != "cuda" or (which := gpu_id(torch.cuda.current_device())) is None:
        return None
    try:
        answer = subprocess.run(
            ["nvidia-smi", f"--id={which}", f"--query-gpu={','.join(QUERIED)}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return read_clocks(answer.stdout)


def read_clocks(text: str) -> dict[str, Any] | None:
    """One line of nvidia-smi's answer; a figure that it does not know ("[N/A]") is None."""
    values = [value.strip() for value in text.splitlines()[0].split(",")] if text.strip() else []
    if len(values) != len(QUERIED):
        return None
    return {
        name: value if name == "driver" else float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else None
        for name, value in zip(QUERIED.values(), values, strict=True)
    }


def _driver() -> str | None:
    try:
        said = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", DRIVER.read_text(errors="replace"))
    except OSError:
        return None
    return said and said[1]


def _cpu_name() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(errors="replace").splitlines() if facts.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
