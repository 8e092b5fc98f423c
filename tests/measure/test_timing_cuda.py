"""What timing does on CUDA, on a machine without: torch.cuda is played, as its documentation has it, and the model runs on the CPU."""

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode

import ocr_flops as of
from ocr_flops.evidence.records import recorder
from ocr_flops.measure import client
from ocr_flops.measure.events import Done, PointFailed, Result
from ocr_flops.measure.worker import gpu_lock, machine, probes, timing
from tests.support.timed import POINT, TILED, Inside, plan, results

OOM = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which 1.20 GiB is free."
SMI = "550.54.15, 1980, 2619, 1980, 2619, 700.00, 31, 97, 20321"


class OnCpu(TorchFunctionMode):
    """Makes on the CPU what is asked for on CUDA."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def moved(value):
            return "cpu" if value == "cuda" or value == torch.device("cuda") else value

        kwargs = kwargs or {}
        if "device" in kwargs:
            kwargs = kwargs | {"device": moved(kwargs["device"])}
        if func is torch.Tensor.to:
            args = (args[0], *(moved(value) if isinstance(value, (str, torch.device)) else value for value in args[1:]))
        return func(*args, **kwargs)


class Played:
    """torch.cuda as far as it is asked: what was called, and events and an allocator that insist on being asked in the right order."""

    def __init__(self):
        self.calls, self.device, self.recorded, self.waited, self.resets = [], 0, 0, -1, 0
        played = self

        class Event:
            def __init__(self, enable_timing=False):
                assert enable_timing

            def record(self):
                self.number, self.at = played.recorded, perf_counter()
                played.recorded += 1

            def synchronize(self):
                played.waited = self.number

            def elapsed_time(self, end):
                if max(self.number, end.number) > played.waited:
                    raise RuntimeError("Both events must be completed before calculating elapsed time.")
                return (end.at - self.at) * 1000

        self.Event = Event

    def heard(self, name, answer=None):
        def call(*arguments):
            self.calls.append(name)
            return answer() if callable(answer) else answer

        return call


@pytest.fixture
def cuda(monkeypatch, tmp_path):
    played = Played()

    def reset():
        played.resets += 1

    uuid = "12345678-0000-0000-0000-000000000000"
    properties = SimpleNamespace(total_memory=150_000_000_000, major=9, minor=0, uuid=uuid)
    for name, function in {
        "is_available": lambda: True,
        "current_device": lambda: played.device,
        "device_count": lambda: 2,
        "set_device": lambda number: setattr(played, "device", number),
        "get_device_name": lambda number=None: "NVIDIA H200",
        "get_device_properties": lambda number: SimpleNamespace(**vars(properties) | {"uuid": f"{uuid[:-1]}{number}"}),
        "synchronize": played.heard("synchronize"),
        "empty_cache": played.heard("empty_cache"),
        "reset_peak_memory_stats": played.heard("reset", reset),
        "memory_allocated": played.heard("held", lambda: 1000 + played.resets),
        "max_memory_allocated": played.heard("allocated", lambda: 5000 + played.resets),
        "max_memory_reserved": played.heard("reserved", lambda: 9000 - played.resets),
        "Event": played.Event,
    }.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with OnCpu():
        yield played


@pytest.fixture
def nvidia_smi(monkeypatch, tmp_path):
    """A program of that name that answers, and keeps what it was asked."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "{SMI}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "asked"


def test_a_whole_run(cuda, nvidia_smi, tiny, monkeypatch):
    """From the request to the record's use of an H200's peaks."""
    monkeypatch.setattr(client, "Worker", Inside)
    (record,) = recorder.measure_points(plan("attention=eager", device="auto", probes=("modules", "memory", "flops", "traffic")), [POINT])
    assert record["state"] == "done", record["failure"]
    ran, h200 = record["ran"], of.load_hardware("h200")
    assert (ran["device"], ran["device_name"], record["hardware"]["name"]) == ("cuda", "NVIDIA H200", "h200")
    assert (ran["capability"], ran["driver"], ran["memory_bytes"]) == ("9.0", "550.54.15", 150_000_000_000)
    assert ran["clocks_before"]["sm_mhz"] == ran["clocks_after"]["sm_mhz"] == 1980 and ran["not_observed"] == {}
    assert "--id=GPU-12345678-0000-0000-0000-000000000000 " in nvidia_smi.read_text()
    assert set(record["derived"]) == {"vision", "prefill", "decode"}
    for stage, figures in record["derived"].items():
        assert figures["torch_flops_counted"] == figures["analytic_torch_flops"] > 0
        assert figures["mfu"] == pytest.approx(figures["torch_flops_counted"] / figures["median_seconds"] / h200.matrix_peak("bf16"))
        moved = figures["io_bytes"] / figures["median_seconds"]
        assert figures["bandwidth_use"] == pytest.approx(moved / h200.memory_bandwidth_bytes_per_second)
        assert (
            figures["peak_source"] == "allocator"
            and figures["peak_allocated_bytes"] == record["stages"][stage]["memory"]["allocated_bytes"]
        )
        assert all(seconds > 0 for seconds in record["stages"][stage]["seconds"])


def test_the_clock_is_read_when_the_device_is_done(cuda):
    marks = [probes.CudaClock.mark() for _ in range(3)]
    with pytest.raises(RuntimeError, match="must be completed"):
        marks[0].elapsed_time(marks[1])
    first, second = probes.CudaClock.between(marks)
    assert first == marks[1].at - marks[0].at and second == marks[2].at - marks[1].at


def test_a_stage_begins_when_the_device_is_idle(cuda, monkeypatch):
    """Its inputs are made before; what makes them must not be timed."""
    mark = probes.CudaClock.mark

    def marked():
        cuda.calls.append("mark")
        return mark()

    monkeypatch.setattr(probes.CudaClock, "mark", staticmethod(marked))
    assert results(Inside(plan("attention=eager", device="cuda", probes=(), runs=1, warmup=0).request([POINT])))
    stages = [i for i, call in enumerate(cuda.calls) if call == "mark"][::2]
    assert len(stages) == 2 + POINT.output_tokens and all(cuda.calls[i - 1] == "synchronize" for i in stages)


def test_peaks_of_the_allocator(cuda):
    (result,) = results(Inside(plan("attention=eager", device="cuda", probes=("memory",), runs=1, warmup=0).request([POINT])))
    for stage, seen in result.stages.items():
        memory = seen["memory"]
        assert set(memory) == {"idle_bytes", "held_bytes", "allocated_bytes", "reserved_bytes"}
        assert memory["idle_bytes"] < memory["held_bytes"] < memory["allocated_bytes"] < memory["reserved_bytes"]
        if stage == "decode":  # the most of two steps; what was held when the first began
            assert memory["allocated_bytes"] - 5000 > memory["held_bytes"] - 1000
    calls = cuda.calls[: cuda.calls.index("reserved") + 1]
    assert calls[-6:] == ["empty_cache", "reset", "held", "synchronize", "allocated", "reserved"]


def test_out_of_memory_ends_one_point_and_frees_it(cuda, monkeypatch):
    run = timing._time_runs

    def full(session, point, begin):
        if point.global_px == 128:
            raise torch.OutOfMemoryError(OOM)
        return run(session, point, begin)

    monkeypatch.setattr(timing, "_time_runs", full)
    told = list(Inside(plan("attention=eager", device="cuda", probes=()).request([TILED, POINT])))
    failed, done = [event for event in told if isinstance(event, Result | PointFailed)]
    assert failed.message == "out of memory on the GPU: 2.00 GiB more did not fit" and "smaller grid" in failed.advice
    assert isinstance(done, Result) and cuda.calls.count("empty_cache") >= 2 and told[-1] == Done()


def test_an_error_that_stays_costs_one_point_and_a_worker(cuda, monkeypatch):
    """After an illegal memory access CUDA refuses everything; a new process may go on."""
    run, started = timing._time_runs, []

    class Counted(Inside):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self)

    def broken(session, point, begin):
        if point.global_px == 128:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return run(session, point, begin)

    monkeypatch.setattr(client, "Worker", Counted)
    monkeypatch.setattr(timing, "_time_runs", broken)
    monkeypatch.setattr(timing, "_is_usable", lambda device: False)
    made = list(recorder.measure_points(plan("attention=eager", device="cuda", probes=()), [POINT, TILED, POINT]))
    assert [record["state"] for record in made] == ["done", "failed", "done"] and len(started) == 2
    assert "illegal memory access" in made[1]["failure"]["message"]


def test_what_stays_usable(cuda, monkeypatch):
    assert timing._is_usable("cpu") and timing._is_usable("cuda")

    def refused():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", refused)
    assert timing._is_usable("cpu") and not timing._is_usable("cuda")


def test_flash_wants_its_kernel(cuda):
    (*_, last) = Inside(plan("attention=flash", "attention.sam=sdpa", device="cuda").request([POINT]))
    assert last.message.startswith("kernel missing: attention.clip: 'flash' cannot be run without the package flash-attn")


def test_clocks_as_nvidia_smi_tells_them():
    assert machine.read_clocks(f"{SMI}\n") == {
        "driver": "550.54.15",
        "sm_mhz": 1980,
        "memory_mhz": 2619,
        "max_sm_mhz": 1980,
        "max_memory_mhz": 2619,
        "power_limit_watts": 700,
        "temperature_celsius": 31,
        "utilization_percent": 97,
        "used_memory_mib": 20321,
    }
    assert machine.read_clocks(SMI.replace("700.00", "[Not Supported]"))["power_limit_watts"] is None
    assert machine.read_clocks("") is None and machine.read_clocks("No devices were found") is None


@pytest.mark.parametrize(
    "problem", [FileNotFoundError(), subprocess.TimeoutExpired("nvidia-smi", 10), subprocess.CalledProcessError(6, "x")]
)
def test_clocks_that_cannot_be_read_are_null(cuda, monkeypatch, tmp_path, problem):
    def failing(*arguments, **rest):
        raise problem

    monkeypatch.setattr(machine.subprocess, "run", failing)
    said = tmp_path / "version"
    said.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  12.2.0\n")
    monkeypatch.setattr(machine, "DRIVER", said)
    assert machine.clocks("cuda") is None and machine.machine("cuda")["driver"] == "550.54.15"
    said.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build  (root@x)\n")
    assert machine.machine("cuda")["driver"] == "575.57.08"
    monkeypatch.setattr(machine, "DRIVER", tmp_path / "none")
    assert machine.machine("cuda")["driver"] is None


def lock(number):
    return Path(tempfile.gettempdir()) / f"ocr_flops-{machine.gpu_id(number)}.lock"


def test_runs_take_a_gpu_each_and_then_turns(cuda, monkeypatch):
    monkeypatch.setattr(gpu_lock, "PAUSE_SECONDS", 0)
    waited = []

    def waiting():
        waited.append(1)
        if len(waited) == 3:
            second.close()

    with gpu_lock.hold_gpu("cuda", waiting):
        assert cuda.device == 0 and not waited
        with lock(1).open("w") as second:
            fcntl.flock(second, fcntl.LOCK_EX)
            with gpu_lock.hold_gpu("cuda", waiting):
                assert cuda.device == 1 and len(waited) == 3
    with gpu_lock.hold_gpu("cuda", waiting):  # both are free again
        assert cuda.device == 0 and len(waited) == 3


def test_every_user_of_a_machine_can_take_the_lock(cuda):
    """Also where the one who made the file lets nobody else write."""
    before = os.umask(0o077)
    try:
        with gpu_lock.hold_gpu("cuda", None):
            assert lock(0).stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_a_run_that_can_hold_nothing_goes_ahead(cuda, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with gpu_lock.hold_gpu("cuda", None):
        assert cuda.device == 0
