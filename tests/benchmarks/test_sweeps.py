"""Sweeps from the shell and inside, and how fast and in how much memory a product streams, whatever its size. No limit is asserted."""

import json
import subprocess
import sys
import time

import psutil
import pytest

from ocr_flops.reports.sweep_writers import write_sweep
from ocr_flops.studies.sweeps.plan import load_sweep

REFERENCE = ["sweep=reference", "attention=[eager,flash]"]
FORMATS = ("parquet", "json", "sqlite")
PRODUCT = ["workload.columns=1:10", "workload.rows=1:10", "workload.batch_size=[1,4,16,64,256]", "attention=[eager,flash]"]
MEASURED = {}


def test_reference_inside(benchmark, tell):
    sweep = load_sweep(REFERENCE)
    benchmark(sweep.stages_frame)
    once = benchmark.stats.stats.median
    tell(
        "sweep=reference, two modes, computed to one frame",
        f"{once * 1e3:.1f} ms",
        f"{114.7 / once:,.0f} x faster than the reference's 114.7 s",
    )


def test_reference_with_files(benchmark, tell, tmp_path):
    sweep, number = load_sweep(REFERENCE), iter(range(10**6))
    benchmark.pedantic(lambda: write_sweep(sweep, tmp_path / str(next(number)), FORMATS), rounds=10, warmup_rounds=1)
    tell("  with Parquet, JSON, SQLite and manifest on the disk", f"{benchmark.stats.stats.median * 1e3:.1f} ms")


def test_reference_from_the_shell(benchmark, tell, tmp_path):
    number = iter(range(100))

    def command():
        arguments = ["sweep", *REFERENCE, "--format", ",".join(FORMATS), "--out", str(tmp_path / str(next(number)))]
        subprocess.run([sys.executable, "-m", "ocr_flops", *arguments], check=True, capture_output=True)

    benchmark.pedantic(command, rounds=3)
    tell("  from the shell", f"{benchmark.stats.stats.min:.2f} s")


@pytest.mark.parametrize("points", [10**6, 10**7])
def test_product_streamed(benchmark, tell, tmp_path, points):
    out = tmp_path / "run"

    def command():
        arguments = ["sweep", *PRODUCT, f"workload.prompt_tokens=1:{points // 1000}", "--out", str(out)]
        peak = 0
        with subprocess.Popen(
            [sys.executable, "-m", "ocr_flops", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                try:
                    peak = max(peak, watched.memory_info().rss)
                except psutil.NoSuchProcess:
                    break
                time.sleep(0.02)
        assert process.returncode == 0
        MEASURED[points] = peak

    benchmark.pedantic(command, rounds=1)
    manifest = json.loads((out / "manifest.json").read_text())
    size = sum(file["bytes"] for file in manifest["files"])
    took = benchmark.stats.stats.min
    beside = f", {MEASURED[points] / MEASURED[10**6]:.2f} x that of 1,000,000 points" if 10**6 in MEASURED and points != 10**6 else ""
    tell(
        f"product, {points:,} points, {manifest['rows']:,} rows to Parquet",
        f"{took:.1f} s",
        f"{manifest['rows'] / took:,.0f} rows a second, {size / manifest['rows']:.0f} bytes a row, {MEASURED[points] / 1e6:.0f} MB at its peak{beside}",
    )
