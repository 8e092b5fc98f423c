"""What each way to fail is called, and what it is advised to do."""

import re
from importlib.metadata import requires

import pytest

from ocr_flops.measure import failures
from ocr_flops.measure.failures import of_exception, of_exit

MEMORY, INSTALL, KERNEL = "smaller grid", "Install torch >= 2.6", "no kernel for what was asked"
CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 12300000000 bytes."
GPU = "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 22.03 GiB of which 1.2 GiB is free."


@pytest.mark.parametrize(
    ("problem", "message", "advice"),
    [
        (RuntimeError(GPU + "\nmore"), "out of memory on the GPU: 20.50 GiB more did not fit", MEMORY),
        (RuntimeError(CPU), "out of memory on the CPU: 12.3 GB more did not fit", MEMORY),
        (RuntimeError("CUDA error: out of memory"), "CUDA error: out of memory", MEMORY),
        (MemoryError(), "out of memory", MEMORY),
        (MemoryError("Unable to allocate 3 GiB"), "out of memory: Unable to allocate 3 GiB", MEMORY),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "torch is not installed", INSTALL),
        (ModuleNotFoundError("No module named 'torchvision'", name="torchvision"), "No module named 'torchvision'", INSTALL),
        (ImportError("cannot import name 'UnlimitedOcrConfig' from 'transformers'"), "cannot import name 'UnlimitedOcr", INSTALL),
        (
            ImportError(failures.too_old("transformers", "4.46.3")),
            "transformers 4.46.3 is too old; the worker needs transformers >= 5.20",
            INSTALL,
        ),
        (RuntimeError("device: 'cuda' is not available here; choose meta"), "device: 'cuda' is not available here", "nvidia-smi"),
        (AssertionError("Torch not compiled with CUDA enabled"), "AssertionError: Torch not compiled with CUDA", "nvidia-smi"),
        (NotImplementedError("The register_meta function for torch.nonzero() raises"), "The register_meta function", KERNEL),
        (RuntimeError("No available kernel. Aborting execution."), "No available kernel. Aborting execution.", KERNEL),
        (NotImplementedError("Could not run 'aten::x' with arguments from the 'Meta' backend."), "Could not run 'aten::x'", KERNEL),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "CUDA error", KERNEL),
        (ValueError("attention.sam: 'flash' cannot be run by"), "attention.sam: 'flash' cannot be run by", "everything else is modelled"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device", "free some space"),
        (KeyError("clip"), "KeyError: 'clip'", "Nothing was changed"),
        (RuntimeError(), "RuntimeError", "Nothing was changed"),
    ],
)
def test_what_an_exception_means(problem, message, advice):
    failure = of_exception(problem)
    assert failure.message.startswith(message) and "\n" not in failure.message
    assert advice in failure.advice and not failure.detail


@pytest.mark.parametrize(
    ("code", "log", "advice"),
    [
        (-9, "flash_attn is not installed", "ran out of memory"),
        (137, "", "ran out of memory"),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'\nAborted", MEMORY),
        (-6, "Aborted", "A library stopped"),
        (134, "Aborted", "A library stopped"),
        (-11, "Segmentation fault", "A library crashed"),
        (-4, "", "another build of torch"),
        (-7, "", "free some space"),
        (-15, "", "run again"),
        (
            1,
            "/usr/bin/python3: Error while finding module specification for 'x' (ModuleNotFoundError: No module named 'ocr_flops')",
            "lacks ocr-flops",
        ),
        (1, "No module named 'torch' (a warning)\none\ntwo\nthree", "three"),
        (3, "", "It left no message"),
    ],
)
def test_what_an_exit_means(code, log, advice):
    failure = of_exit(code, log)
    assert failure.message == f"the worker ended early ({f'killed by signal {-code}' if code < 0 else f'exit code {code}'})"
    assert advice in failure.advice and failure.detail == log


def test_the_versions_needed_are_those_of_the_package():
    declared = dict(
        re.match(r"(\w+)>=([\d.]+)$", line).groups() for line in requires("ocr-flops") if re.match(r"(torch|transformers)>", line)
    )
    assert declared == failures.REQUIRED


@pytest.mark.parametrize(
    ("version", "old"), [("2.5.1+cu121", True), ("2.6.0", False), ("2.13.0+cpu", False), ("1.13", True), ("3.0a1", False)]
)
def test_versions_are_compared_as_numbers(version, old):
    assert bool(failures.too_old("torch", version)) == old


def test_a_log_is_cut_to_its_last_lines():
    assert failures.tail("\n".join(map(str, range(50))) + "\n\n \n") == "\n".join(map(str, range(30, 50)))
    assert failures.tail("") == ""
    assert len(failures.tail("x" * 10_000)) == failures.TAIL_BYTES
