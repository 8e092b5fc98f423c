"""The real model timed: what a stage's result holds, that nothing else runs meanwhile, and how a point fails."""

import importlib
import sys

import pytest
import torch

import ocr_flops as of
from ocr_flops.measure.events import Done, PointFailed, Progress, Ran, Result
from ocr_flops.measure.plan import ModelSource
from ocr_flops.measure.protocol import ProgressStep, Request, progress_steps
from ocr_flops.measure.worker import probes, remote_engine, timing
from ocr_flops.measure.worker.session import Session
from ocr_flops.spec.workload import Workload
from tests.support.timed import POINT, TILED, Inside, plan, results, served

STAGES = ("vision", "prefill", "decode")


def events_of(request):
    return list(Inside(request))


@pytest.fixture(scope="module")
def timed():
    chosen, told = served()
    return chosen.request([POINT, TILED]), told


def test_every_run_is_kept(timed):
    for result, point in zip(results(timed[1]), (POINT, TILED), strict=True):
        assert tuple(result.stages) == STAGES
        for stage, seen in result.stages.items():
            assert len(seen["seconds"]) == 3 and all(seconds > 0 for seconds in seen["seconds"])
            assert seen["steps"] == (point.output_tokens if stage == "decode" else 1)
            assert [sum(passes) for passes in seen["step_seconds"]] == seen["seconds"]
            assert all(len(passes) == seen["steps"] for passes in seen["step_seconds"])
            assert seen["memory"] is None  # no such allocator on the CPU
            assert (seen["kv_cache_bytes"] is None) == (stage == "vision")


def test_modules_share_out_the_hooked_runs(timed):
    """Everything between a stage's ends belongs to one module, and every module that computes has a time."""
    for result in results(timed[1]):
        for seen in result.stages.values():
            assert all(len(runs) == 3 for runs in seen["module_seconds"].values())
            for number, whole in enumerate(seen["hooked_seconds"]):
                assert sum(runs[number] for runs in seen["module_seconds"].values()) == pytest.approx(whole)
            assert {module for module, flops in seen["modules"].items() if flops} <= set(seen["module_seconds"])


def test_counted_flops_are_the_analytic_ones(timed, tiny):
    for result, point in zip(results(timed[1]), (POINT, TILED), strict=True):
        numbers = of.estimate(tiny, point, "sdpa")
        for stage, seen in result.stages.items():
            assert seen["flops"] == numbers.stage_numbers[stage]["torch_flops"]
            assert sum(seen["modules"].values()) == seen["flops"]


def test_what_was_not_counted_is_named(timed):
    stages = results(timed[1])[0].stages
    assert [note.partition(":")[0] for note in stages["vision"]["not_counted"]] == ["sam", "clip"]
    assert [note.partition(":")[0] for note in stages["decode"]["not_counted"]] == ["decoder", "decoder.routed_experts"]


def test_every_step_is_announced(timed):
    request, told = timed
    announced = [event for event in told if isinstance(event, Progress)]
    assert [ProgressStep(event.stage, event.point) for event in announced] == progress_steps(request)
    assert [event.done for event in announced] == list(range(len(announced)))


def test_what_ran_is_told_before_it_runs(timed):
    """So that a worker that dies leaves a record of where."""
    (first,) = [event for event in timed[1] if isinstance(event, Ran)]
    assert timed[1].index(first) < timed[1].index(results(timed[1])[0])
    assert {"device_name", "torch", "transformers", "threads", "experts", "runs"} <= set(first.ran)
    assert results(timed[1])[0].ran["clocks_before"] is None


def test_timed_runs_are_free_of_hooks_and_counters(monkeypatch):
    """Anything that watches would be timed too."""
    seen = []

    class Spy(probes.HostClock):
        def between(self, marks):
            modes = torch._C._len_torch_dispatch_stack()
            seen.append((modes, "forward" in vars(sessions[0].model.model.language_model.layers[0].self_attn)))
            return super().between(marks)

    sessions = []
    original = timing._time_runs

    def spying(session, *rest):
        sessions.append(session)
        return original(session, *rest)

    monkeypatch.setattr(timing, "clock_of", lambda device: Spy())
    monkeypatch.setattr(timing, "_time_runs", spying)
    assert results(events_of(plan(probes=("modules",), warmup=0, runs=1).request([POINT])))
    stages = 2 + POINT.output_tokens
    assert seen[:stages] == [(0, False)] * stages
    assert seen[stages:] == [(0, True)] * stages  # the pass apart: wrapped, and bare again when it ends
    assert not [module for module in sessions[0].model.modules() if "forward" in vars(module) or module._forward_hooks]


def test_what_is_not_asked_for_is_null():
    (result,) = results(events_of(plan("stages=[prefill]", probes=()).request([POINT])))
    assert list(result.stages) == ["prefill"]
    for name in ("module_seconds", "hooked_seconds", "flops", "modules", "operators", "not_counted", "traced", "memory"):
        assert result.stages["prefill"][name] is None


def test_the_experts_asked_for_run():
    (result,) = results(events_of(plan("stages=[prefill]", probes=("flops",), experts="batched_mm").request([POINT])))
    assert result.ran["experts"] == "batched_mm"
    assert not any("routed_experts" in note for note in result.stages["prefill"]["not_counted"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["attention=flash"], "kernel missing: attention.sam: 'flash' cannot be run"),
        (
            ["attention=flash", "attention.sam=sdpa"],
            "kernel missing: attention.clip: 'flash' cannot be run without a CUDA device; choose sdpa",
        ),
    ],
)
def test_a_missing_kernel(overrides, message):
    last = events_of(plan(*overrides).request([POINT]))[-1]
    assert last.message.startswith(message) and last.advice


def test_out_of_memory_ends_one_point(monkeypatch):
    """CUDA's allocator raises; the points after it are still timed, and the steps stay in step."""
    from ocr_flops.measure.worker.session import Session

    run = Session.run_stages

    def full(self, point, *rest):
        if point.global_px == 128:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB")
        return run(self, point, *rest)

    monkeypatch.setattr(Session, "run_stages", full)
    request = plan(probes=()).request([TILED, POINT])
    told = events_of(request)
    failed, done = [event for event in told if isinstance(event, Result | PointFailed)]
    assert isinstance(failed, PointFailed) and isinstance(done, Result) and (failed.point, done.point) == (0, 1)
    assert failed.message == "out of memory on the GPU: 2.00 GiB more did not fit" and "smaller grid" in failed.advice
    assert failed.ran["device_name"]
    assert [event.point for event in told if isinstance(event, Progress)][3:] == [0, 1, 1, 1, 1]
    assert told[-1] == Done()


@pytest.mark.parametrize("name", ["modules", *(pytest.param(name, marks=pytest.mark.verification) for name in ("flops", "traffic"))])
def test_a_pass_that_fails_costs_its_figures_alone(monkeypatch, name):
    """The times that were taken before it are kept."""

    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB")

    monkeypatch.setitem(timing.OBSERVED, name, full)
    (result,) = results(events_of(plan("stages=[prefill]", probes=("modules", "flops", "traffic"), runs=1, warmup=0).request([POINT])))
    assert result.ran["not_observed"].keys() == {name} and "out of memory" in result.ran["not_observed"][name]
    seen = result.stages["prefill"]
    figures = {"modules": "module_seconds", "flops": "flops", "traffic": "traced"}
    assert len(seen["seconds"]) == 1 and [other for other in figures if seen[figures[other]] is None] == [name]


def test_a_device_that_refuses_everything_ends_the_worker(monkeypatch):
    """So that the points after it get a new one."""

    def broken(*arguments):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(timing, "_time_runs", broken)
    monkeypatch.setattr(timing, "_is_usable", lambda device: False)
    told = events_of(plan().request([POINT, TILED]))
    assert "illegal memory access" in told[-1].message
    assert not [event for event in told if isinstance(event, Result | PointFailed)]


def test_the_experts_hit_are_those_of_the_timed_runs(tiny):
    """Every run has the same inputs; sequences and steps of decode have tokens of their own, and so are routed to different experts."""
    point = Workload(64, output_tokens=3, batch_size=4)
    picks = []

    def routed(module, args, output):
        picks.append(output[2].reshape(-1, tiny.tower("decoder").experts_per_token).tolist())

    session = Session(plan("stages=[decode]", "dtype=fp32").request([point]))
    layers = session.model.model.language_model.layers[tiny.tower("decoder").dense_layers :]
    for layer in layers:
        layer.mlp.gate.register_forward_hook(routed)
    runs = []
    for _ in range(2):
        session.run_stages(point, probes.StageTimes(session, probes.HostClock()))
        runs.append(picks.copy())
        picks.clear()
    assert runs[0] == runs[1]
    steps = runs[0][len(layers) :]  # behind prefill
    assert len(steps) == 3 * len(layers) and all(len({tuple(sorted(row)) for row in rows}) > 1 for rows in steps)
    seen = timing._observe_flops(session, point)["decode"]
    assert seen["experts_hit"] == sum(len({expert for row in rows for expert in row}) for rows in steps)


def snapshot_plan(tiny, tmp_path, *overrides, **rest):
    from tests.support.remote_snapshot import make

    source = ModelSource("remote_code", make(tiny, tmp_path / "snapshot"), True)
    return plan("engine=remote_code", *overrides, source=source, **rest)


def test_modules_whose_forward_is_called_directly_have_their_own_time(tiny, tmp_path):
    """As CLIP's blocks in the published code call that of attention and MLP."""
    time = [0.0]

    def passing(seconds):
        def hook(module, args, output):
            time[0] += seconds

        return hook

    session = Session(snapshot_plan(tiny, tmp_path, "stages=[vision]").request([POINT]))
    blocks = session.model.model.vision_model.transformer.layers
    for block in blocks:
        block.mlp.fc1.register_forward_hook(passing(1))
        block.self_attn.qkv_proj.register_forward_hook(passing(100))
    with probes.ModuleTimes(session, probes.HostClock(lambda: time[0])) as modules:
        session.run_stages(POINT, modules)
    seconds = {module: spent for module, spent in modules.seconds["vision"].items() if spent}
    assert seconds == {"clip.mlp": len(blocks), "clip.attention": 100 * len(blocks)}


def test_the_vendors_flash_decoder_is_timed_and_counted_as_eager(tiny, tmp_path, monkeypatch):
    asked = snapshot_plan(tiny, tmp_path, "attention.decoder=flash", probes=("flops",), runs=1, warmup=0).request([POINT])
    assert asked.attention == {"sam": "sdpa", "clip": "sdpa", "decoder": "flash"}
    missing = events_of(asked)[-1]
    assert missing.message == "kernel missing: attention.decoder: 'flash' cannot be run without a CUDA device; choose eager"
    monkeypatch.setattr(remote_engine, "need_flash", lambda *arguments: None)
    # That of transformers 5 looks for the package before the code is asked.
    monkeypatch.setattr("transformers.PreTrainedModel._check_and_adjust_attn_implementation", lambda model, asked, *rest, **options: asked)
    session, ran = Session(asked), []
    attention = session.model.model.layers[0].self_attn
    attention.register_forward_hook(lambda module, args, output: ran.append(type(module).__name__))
    stages = timing._time_runs(session, POINT, lambda text: None)
    timing._add_probes(session, POINT, stages, {}, lambda text: None)
    steps = 1 + POINT.output_tokens
    assert ran == ["LlamaFlashAttention2"] * steps + ["LlamaAttention"] * steps and type(attention).__name__ == "LlamaFlashAttention2"
    numbers = of.estimate(tiny, POINT, engine="remote_code")
    for stage in ("prefill", "decode"):
        assert stages[stage]["flops"] == numbers.stage_numbers[stage]["torch_flops"]
        assert stages[stage]["not_counted"] == ["decoder: flash-attn is not counted; counted with eager"]


def test_the_vendors_code_is_timed_where_transformers_lacks_our_class(tiny, tmp_path, monkeypatch):
    """transformers 4.46.3, which it needs, has no UnlimitedOcr."""
    for name in ("timing", "counting"):
        path = f"ocr_flops.measure.worker.{name}"
        monkeypatch.setattr(path, importlib.import_module(path))  # so that the package has its module back afterwards
        monkeypatch.delitem(sys.modules, path)
    monkeypatch.setitem(sys.modules, "ocr_flops.measure.worker.transformers_engine", None)
    asked = snapshot_plan(tiny, tmp_path, probes=("modules", "flops", "traffic")).request([TILED])
    (result,) = results(events_of(asked))
    assert result.ran["experts"] == "loop" and result.ran["not_observed"] == {}
    numbers = of.estimate(tiny, TILED, engine="remote_code")
    for stage, seen in result.stages.items():
        assert seen["flops"] == numbers.stage_numbers[stage]["torch_flops"]
        assert {module for module, flops in seen["modules"].items() if flops} <= set(seen["module_seconds"]) and seen["traced"]


def test_the_device_is_told_without_a_model():
    (told, done) = events_of(Request({}, [], device="auto", kind="device"))
    assert set(told.ran) == {"device", "device_name", "torch", "transformers", "ocr_flops"} and done == Done()
    assert told.ran["torch"] == torch.__version__
