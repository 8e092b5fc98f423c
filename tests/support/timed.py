"""Helpers of the tests that time the tiny model: a worker inside this process, one that answers at once, and records of either."""

import functools

import ocr_flops
from ocr_flops.evidence import records
from ocr_flops.evidence.records import recorder
from ocr_flops.measure import failures
from ocr_flops.measure.events import Done, Progress, Ran, Result
from ocr_flops.measure.plan import Plan
from ocr_flops.measure.protocol import PROBES, ProgressStep, progress_steps
from ocr_flops.spec.run_spec import load_run
from ocr_flops.spec.workload import Workload

POINT = Workload(64, output_tokens=2)
TILED = Workload(128, 64, 2, 1, prompt_tokens=3, output_tokens=1)
RAN = {
    "device_name": "Abacus 9000",
    "torch": "2.13.0",
    "transformers": "5.20.0",
    "ocr_flops": ocr_flops.__version__,
    "weights": "random",
    "parameters": 1000,
    "experts": "grouped_mm",
    "not_observed": {},
}


def plan(*overrides, **rest):
    return Plan(load_run(["model=tiny_test", *overrides]), **{"device": "cpu", "runs": 3, "warmup": 1, **rest})


class Inside:
    """Stands in for `client.Worker`: serves in this process, then ends as `main` does."""

    def __init__(self, request, python=None):
        self.request, self.is_cancelled = request, False

    def cancel(self):
        self.is_cancelled = True

    close = cancel

    def __iter__(self):
        import torch

        from ocr_flops.measure.__main__ import serve

        events, threads = [], torch.get_num_threads()
        torch.set_num_threads(1)  # on a busy machine several wait for one another
        try:
            serve(self.request, events.append)
            events.append(Done())
        except Exception as problem:
            events.append(failures.of_exception(problem))
        finally:
            torch.set_num_threads(threads)
        yield from events


class AtOnce(Inside):
    """Stands in for `Worker` where what matters is what becomes of its events: every stage took half a second."""

    def __iter__(self):
        request = self.request
        steps, ran = progress_steps(request), RAN | {"dtype": request.dtype}
        yield Ran(ran)
        for number, point in enumerate(request.workloads):
            yield Progress(steps.index(ProgressStep("timed", number)), len(steps), "timed run", "timed", number)
            yield Result(number, point, ran, {stage: self.stage(stage, point) for stage in request.stages})
        yield Done()

    def stage(self, stage, point):
        passes = point.output_tokens if stage == "decode" else 1
        nothing = dict.fromkeys(("module_seconds", "hooked_seconds", "memory", "flops", "modules", "operators", "not_counted", "traced"))
        runs = self.request.runs
        return {
            "seconds": [0.5] * runs,
            "steps": passes,
            "step_seconds": [[0.5 / passes] * passes] * runs,
            "kv_cache_bytes": None,
        } | nothing


@functools.cache
def served():
    """A plan with every pass, and what the worker says when it times POINT and TILED by it; not to be changed."""
    chosen = plan("attention=sdpa", probes=PROBES)
    return chosen, tuple(Inside(chosen.request([POINT, TILED])))


def results(events):
    return [event for event in events if isinstance(event, Result)]


def recorded(where, *points, chosen=None):
    """Records of points in a folder, timed in this process; `client.Worker` must be `Inside`."""
    found = list(recorder.measure_points(chosen or plan(probes=()), points or (POINT,)))
    return [(record, records.write_record(record, where)) for record in found]
