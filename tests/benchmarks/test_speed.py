"""How fast the analytic core is, beside what it replaces, measured in the same run. No limit is asserted: `make bench` prints a table."""

import itertools
import json
import subprocess
import sys
import time

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.protocol import Point
from ocr_flops.timing.serving.simulator import simulate
from ocr_flops.timing.serving.steady import prepare
from ocr_flops.timing.serving.traffic import Lengths, draw_traffic

FLOPS = ("tensor_flops", "vector_flops", "total_flops", "torch_flops")
REFERENCE_SECONDS = 114.7  # what the reference took for 53 grids in two attention modes (PARITY.md)
REFERENCE_GRIDS = [(columns, rows) for rows in range(1, 30) for columns in range(1, rows + 1) if 2 <= columns * rows <= 29]
POINT = {"columns": 2, "rows": 3, "output_tokens": 3}


@pytest.fixture(scope="module")
def fresh():
    """Workloads not seen before, so that nothing is found in a cache: the prompt grows by a token each time."""
    prompts = itertools.count(10)
    return lambda: of.Workload.from_grid(2, 3, prompt_tokens=next(prompts))


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def milliseconds(benchmark) -> str:
    return f"{benchmark.stats.stats.median * 1e3:.3f} ms"


@pytest.fixture(scope="module")
def rebuilt_seconds():
    """One point with its specs composed by Hydra again, as the reference did at every point."""
    from ocr_flops.spec import catalog
    from ocr_flops.spec.run_spec import load_run

    def rebuild():
        for loader in vars(catalog).values():
            getattr(loader, "cache_clear", lambda: None)()
        run = load_run(["workload.columns=2", "workload.rows=3", "attention=eager"])
        of.estimate(run.model, run.workload, run.attention, engine=run.engine).stage_numbers  # noqa: B018

    rebuild()
    return min(seconds(rebuild) for _ in range(5))


@pytest.fixture(scope="module")
def counted(model):
    """Seconds of one point counted with FlopCounterMode on meta, the model already built and warm."""
    from ocr_flops.measure.worker.counting import Counting
    from ocr_flops.measure.worker.session import Session

    session = Session(build_request(model, [], device="meta"))
    point = Point(1024, 640, 2, 3, 10, 1, 1)
    session.run_stages(point, Counting(session))
    return min(seconds(lambda: session.run_stages(point, Counting(session))) for _ in range(3))


def test_estimate_numbers(benchmark, model, fresh, tell, counted, rebuilt_seconds):
    benchmark(lambda: of.estimate(model, fresh(), "eager").stage_numbers)
    once = benchmark.stats.stats.median
    tell("estimate, numbers of stages", milliseconds(benchmark))
    tell("  counted with FlopCounterMode on meta, session warm", f"{counted * 1e3:.0f} ms", f"{counted / once:,.0f} x as long")
    tell("  specs rebuilt through Hydra for the point", f"{rebuilt_seconds * 1e3:.0f} ms", f"{rebuilt_seconds / once:,.0f} x as long")


def test_estimate_with_module_numbers(benchmark, model, fresh, tell):
    def both():
        result = of.estimate(model, fresh(), "eager")
        return result.stage_numbers, result.module_numbers

    benchmark(both)
    tell("estimate, numbers of stages and modules", milliseconds(benchmark))


def test_estimate_with_frames(benchmark, model, fresh, tell):
    def both():
        result = of.estimate(model, fresh(), "eager")
        return result.stages, result.modules

    benchmark(both)
    tell("estimate, both frames", milliseconds(benchmark))


def test_time_on_a_device(benchmark, model, fresh, tell):
    gpu = of.load_hardware("h200")
    benchmark.pedantic(lambda result: result.on(gpu).expected_ttft, setup=lambda: ((of.estimate(model, fresh(), "eager"),), {}), rounds=200)
    tell("  .on(gpu) with expected times, added to the estimate (goal of both: 1 ms)", milliseconds(benchmark))


def test_serving_point(benchmark, model, tell):
    """Goal: 2 ms."""
    loads, page = iter(range(1, 10**6)), of.Workload.from_grid(2, 3, output_tokens=800)
    benchmark(lambda: of.serving(model, page, "l4", concurrency=1 + next(loads) % 180))
    tell("serving, one load (goal: 2 ms)", milliseconds(benchmark))


def test_serving_curves(benchmark, model, tell):
    """Goal: 50 ms."""
    gpus = ("l4", "a10", "a100_40gb", "a100_80gb_sxm", "h100_sxm", "h200", "mi300x", "b200")
    page, flying = of.Workload.from_grid(2, 3, output_tokens=800), np.arange(1, 65)
    benchmark(lambda: [of.serving(model, page, gpu, concurrency=flying) for gpu in gpus])
    tell("serving, 64 concurrencies on 8 GPUs (goal: 50 ms)", milliseconds(benchmark))


def test_serving_unseen(benchmark, model, tell):
    """A prompt that was not served before: steps are timed anew, loads balanced anew."""
    prompts, gpus, flying = (
        iter(range(100, 10**6)),
        ("l4", "a10", "a100_40gb", "a100_80gb_sxm", "h100_sxm", "h200", "mi300x", "b200"),
        np.arange(1, 65),
    )

    def curves():
        page = of.Workload.from_grid(2, 3, prompt_tokens=next(prompts), output_tokens=800)
        return [of.serving(model, page, gpu, concurrency=flying) for gpu in gpus]

    benchmark(curves)
    tell("  the same of a prompt not seen before (goal: 50 ms)", milliseconds(benchmark))


def test_serving_simulation(benchmark, model, tell):
    """Goal: a million requests in a minute."""
    server = prepare(model, of.Workload.from_grid(2, 3, output_tokens=800), "a100_40gb")
    traffic = draw_traffic(100_000, Lengths(800, p95=1600), rate=5.0)
    benchmark.pedantic(lambda: simulate(server, traffic), rounds=1)
    tell("serving, 100 000 requests simulated (goal for ten times as many: 60 s)", f"{benchmark.stats.stats.min:.1f} s")


def distinct(points: int) -> of.Workload:
    """Random grids, prompts, outputs and batches, no two points alike."""
    generator = np.random.default_rng(points)
    columns, rows = generator.integers(1, 13, (2, points))
    return of.Workload.from_grid(
        columns,
        rows,
        prompt_tokens=np.arange(points, dtype=np.int64) % 100_000,
        output_tokens=generator.integers(1, 4096, points),
        batch_size=generator.integers(1, 65, points),
    )


@pytest.mark.parametrize("points", [10**3, 10**5, 10**6])
@pytest.mark.parametrize(("name", "columns"), [("FLOP columns", FLOPS), ("all columns", None)])
def test_sweep(benchmark, model, tell, points, name, columns):
    workload = distinct(points)
    chosen = {} if columns is None else {"columns": columns}
    of.sweep(model, distinct(10), "eager", **chosen)
    rounds = 20 if points < 10**5 else 3
    benchmark.pedantic(lambda: of.sweep(model, workload, "eager", **chosen), rounds=rounds)
    fastest = benchmark.stats.stats.min
    tell(f"sweep, {points:,} points, {name}", f"{fastest:.3f} s", f"{points / fastest:,.0f} points a second")


def test_sweep_with_a_device(benchmark, model, tell):
    points, generator = 50_000, np.random.default_rng(0)
    width, height = generator.integers(300, 3000, (2, points))
    lengths = {"output_tokens": generator.integers(1, 2000, points), "prompt_tokens": generator.integers(1, 60, points)}
    workload = of.Workload.from_image(width, height, batch_size=generator.integers(1, 65, points), **lengths)
    gpu, costs = of.load_hardware("h200"), min(seconds(lambda: of.sweep(model, workload)) for _ in range(3))
    benchmark.pedantic(lambda: of.sweep(model, workload, hardware=gpu), rounds=3)
    fastest = benchmark.stats.stats.min
    what = f"sweep, {points:,} pages with roofline, bound and expected times (goal: 200,000 points a second)"
    tell(what, f"{fastest:.3f} s", f"{points / fastest:,.0f} points a second; {fastest / costs:.1f} x the sweep of costs alone")


def test_grids_of_the_reference(benchmark, model, tell, rebuilt_seconds):
    assert len(REFERENCE_GRIDS) == 53
    columns, rows = np.array(REFERENCE_GRIDS).T
    benchmark(lambda: of.sweep(model, of.Workload.from_grid(columns=columns, rows=rows), ["eager", "flash"]))
    once = benchmark.stats.stats.median
    faster = f"{REFERENCE_SECONDS / once:,.0f} x faster than its 114.7 s"
    tell("sweep, the reference's 53 grids, two modes, all stages", milliseconds(benchmark), faster)
    tell("  specs rebuilt through Hydra at every point", f"{106 * rebuilt_seconds:.1f} s", f"{106 * rebuilt_seconds / once:,.0f} x as long")


def test_import(benchmark, tell):
    took = []

    def timed(code):
        command = [sys.executable, "-c", f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    benchmark.pedantic(lambda: took.append(timed("import ocr_flops")), rounds=5)
    tell("import ocr_flops", f"{min(took) * 1e3:.1f} ms")
    specs = "import ocr_flops as of; of.load_model(); from ocr_flops.spec.catalog import modes; modes()"
    tell("  import, the model and the six resolution modes (goal: 50 ms)", f"{min(timed(specs) for _ in range(10)) * 1e3:.1f} ms")
    first = "import ocr_flops as of; of.estimate(of.load_model('deepseek_ocr'), of.Workload.from_grid(2, 3)).stages"
    tell("  import, load the model, first estimate and its frame", f"{min(timed(first) for _ in range(3)) * 1e3:.0f} ms")


SPOT_CHECK = """
import json, resource, sys
from ocr_flops.measure.__main__ import main
code = main()
print(json.dumps({"event": "used", "kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("kind", ["count", "trace"])
def test_spot_check(benchmark, model, tell, kind):
    """One point on meta, the worker's start included."""
    request = build_request(model, [of.Workload.from_grid(**POINT)], device="meta", kind=kind).to_json() + "\n"
    peaks = []

    def check():
        done = subprocess.run([sys.executable, "-c", SPOT_CHECK], input=request, capture_output=True, text=True, check=True)
        peaks.append(json.loads(done.stderr.splitlines()[-1])["kib"] * 1024)

    benchmark.pedantic(check, rounds=2)
    what = "counted" if kind == "count" else "traced"
    fastest = benchmark.stats.stats.min
    tell(f"spot check on meta, one point {what}, process start included", f"{fastest:.2f} s", f"{max(peaks) / 1e9:.2f} GB at its peak")
