"""A table of pages in one plan, by engine, and the headers of a folder against a bare loop over them. No limit is asserted."""

import io
import os
import subprocess
import sys
import time

import numpy as np
import polars as pl
import psutil
import pytest
from PIL import Image

ROWS = [10**6, 10**7]
FILES = 10_000
READ = {"polars": "import polars as pl; pages = pl.scan_parquet(path)", "duckdb": "import duckdb; pages = duckdb.read_parquet(path)"}
PLAN = "import ocr_flops as of; print(of.corpus.plan(pages, of.load_model(), 'l4').best['gpu_hours'])"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    for rows in ROWS:
        sizes = {name: rng.integers(200, 5000, rows, np.int32) for name in ("width", "height")}
        lengths = np.minimum(rng.lognormal(6.4, 0.6, rows), 8192).astype(np.int32)
        pl.DataFrame({**sizes, "output_tokens": lengths}).write_parquet(folder / f"{rows}.parquet", row_group_size=10**6)
    return folder


@pytest.mark.parametrize("engine", READ)
@pytest.mark.parametrize("rows", ROWS)
def test_a_plan_from_a_table(benchmark, tell, tables, rows, engine):
    code = f"path = {str(tables / f'{rows}.parquet')!r}; {READ[engine]}; {PLAN}"
    peaks, spent = [], []

    def command():
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as process:
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                try:
                    peaks.append(watched.memory_info().rss)
                    spent.append(sum(watched.cpu_times()[:2]))
                except psutil.NoSuchProcess:
                    break
                time.sleep(0.02)
        assert process.returncode == 0

    benchmark.pedantic(command, rounds=1)
    took = benchmark.stats.stats.min
    tell(
        f"plan of {rows:,} rows in Parquet, {engine}",
        f"{took:.2f} s",
        f"{max(spent):.1f} s of processors, {max(peaks) / 1e6:.0f} MB at its peak, interpreter included",
    )


def test_headers_of_a_folder(benchmark, tell, tmp_path):
    from ocr_flops.studies.corpus.folder import read_folder

    encoded = []
    for number in range(40):
        file = io.BytesIO()
        Image.effect_noise((400 + 40 * number, 600), 20).save(file, "JPEG" if number % 2 else "PNG")
        encoded.append((file.getvalue(), "jpg" if number % 2 else "png"))
    for number in range(FILES):
        content, suffix = encoded[number % len(encoded)]
        (tmp_path / f"{number}.{suffix}").write_bytes(content[:20_000])
    paths = [entry.path for entry in os.scandir(tmp_path)]

    def bare():
        start = time.perf_counter()
        for path in paths:
            with Image.open(path) as image:
                assert image.size
        return time.perf_counter() - start

    once = min(bare() for _ in range(3)) / len(os.sched_getaffinity(0))
    number = iter(range(10))
    benchmark.pedantic(lambda: read_folder(tmp_path, cache=tmp_path.parent / f"{next(number)}.sqlite"), rounds=3)
    took = benchmark.stats.stats.min
    tell(f"headers of {FILES:,} images", f"{took:.2f} s", f"{took / once:.1f} x a bare loop of Pillow divided by the cores")
