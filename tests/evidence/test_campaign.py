"""Campaigns: their points, what is not run again, and Hydra's launchers."""

import errno
import importlib.util
import json
import logging
import os
import pickle
import subprocess
import sys
import tempfile

import pytest

import ocr_flops as of
from ocr_flops import files
from ocr_flops.evidence import records
from ocr_flops.evidence.records import campaign as campaigns
from ocr_flops.measure import client
from ocr_flops.measure.events import Done, PointFailed, Ran
from ocr_flops.measure.failures import Failure
from ocr_flops.spec.catalog import config_dir, modes
from ocr_flops.spec.overrides import compose
from ocr_flops.spec.tiling import rule_grids
from tests.support.timed import RAN, AtOnce

COMMON = {
    "device": "cpu",
    "runs": 1,
    "warmup": 0,
    "experts": None,
    "passes": [],
    "timeout_seconds": 100,
    "retry_failed": True,
    "python": None,
    "snapshot": None,
    "trust_remote_code": False,
    "checkpoint": None,
}
SMALL = {"name": "test", "grids": [[2, 1]], "batch_sizes": [1, 2], "lengths": [[3, 1]]}


@pytest.fixture
def config(tmp_path):
    """A campaign of the tiny model as Hydra hands it over."""

    def composed(*overrides, campaign=SMALL, **rest):
        base = compose(["model=tiny_test", "workload.global_px=64", "workload.tile_px=64", *overrides])
        return base | COMMON | {"campaign": campaign, "records": str(tmp_path / "records")} | rest

    return composed


@pytest.fixture
def workers(monkeypatch):
    """Workers that answer at once; the request of each."""
    requests = []

    class Listed(AtOnce):
        def __init__(self, request, python=None):
            super().__init__(request, python)
            requests.append(request)

    monkeypatch.setattr(client, "Worker", Listed)
    return requests


def whole():
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return OmegaConf.to_container(compose("campaign", return_hydra_config=True), resolve=False)


def test_the_campaign_covers_what_it_promises():
    found = whole()
    spread = found["hydra"]["sweeper"]["params"]
    assert set(spread["workload"].split(",")) == {mode.name for mode in modes()} and len(modes()) == 6
    assert spread["attention"] == "eager,sdpa"
    campaign = found["campaign"]
    assert sorted(columns * rows for columns, rows in campaign["grids"]) == list(range(2, 10))
    assert all(tuple(grid) in rule_grids() for grid in campaign["grids"])
    assert campaign["batch_sizes"] == [1, 4, 16] and len(campaign["lengths"]) == 3


def test_points_are_grids_times_batches_times_lengths(config):
    many = SMALL | {"grids": [[2, 1], [1, 3]], "lengths": [[3, 1], [5, 2]]}
    points = campaigns.campaign_points(config("workload=gundam", campaign=many))
    assert [(p.columns, p.rows, p.batch_size, p.prompt_tokens, p.output_tokens) for p in points] == [
        (*grid, batch, *length) for grid in ((2, 1), (1, 3)) for batch in (1, 2) for length in ((3, 1), (5, 2))
    ]
    untiled = campaigns.campaign_points(config("workload=tiny", "workload.tile_px=0", campaign=many))
    assert len(untiled) == 4 and {point.tiles for point in untiled} == {0}


def test_what_is_recorded_is_not_run_again(config, workers, tmp_path):
    assert campaigns.run_job(config()) == (2, 0, 0)
    assert [len(request.workloads) for request in workers] == [0, 2]  # asks for the device, then times both
    assert campaigns.run_job(config()) == (0, 2, 0)
    assert [len(request.workloads) for request in workers[2:]] == [0]
    assert campaigns.run_job(config(campaign=SMALL | {"batch_sizes": [2, 3]})) == (1, 1, 0)
    assert campaigns.run_job(config("dtype=fp16")) == (2, 0, 0)
    frame, problems = records.records_frame(tmp_path / "records", shipped=tmp_path / "none")
    assert problems == [] and frame["record_id"].n_unique() == 5


def test_another_version_is_measured_anew(config, workers, monkeypatch):
    campaigns.run_job(config())
    monkeypatch.setattr(records.record, "__version__", "9.9")
    assert campaigns.run_job(config()) == (2, 0, 0)


def test_a_failure_is_tried_again_unless_it_shall_not(config, workers, monkeypatch, caplog):
    def full(self):
        yield Ran(RAN)
        for number, point in enumerate(self.request.workloads):
            yield PointFailed(number, point, RAN, "out of memory", "Choose less.")
        yield Done()

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(AtOnce, "__iter__", full)
        assert campaigns.run_job(config()) == (0, 0, 2)
    assert "out of memory (Choose less.)" in caplog.text
    assert campaigns.run_job(config(retry_failed=False)) == (0, 2, 0)
    assert campaigns.run_job(config()) == (2, 0, 0)


def test_a_worker_that_cannot_begin_is_tried_again_always(config, workers, monkeypatch):
    """That says nothing of the points."""

    def broken(self):
        if self.request.workloads:
            yield Failure("torch is not installed", "Install it.")
        else:
            yield Ran(RAN)

    with monkeypatch.context() as patch:
        patch.setattr(AtOnce, "__iter__", broken)
        assert campaigns.run_job(config()) == (0, 0, 2)
    assert campaigns.run_job(config(retry_failed=False)) == (2, 0, 0)


def test_a_job_without_torch_says_so(config, workers, monkeypatch):
    monkeypatch.setattr(AtOnce, "__iter__", lambda self: iter([Failure("torch is not installed", "Get it.")]))
    with pytest.raises(of.SpecError, match=r"^torch is not installed \(Get it.\)"):
        campaigns.run_job(config())


def test_a_disk_that_fills_up_ends_the_job_and_loses_nothing(config, workers, monkeypatch, tmp_path, caplog):
    """What was recorded stays, what was not is printed, and the error can be sent from a launcher's process to another."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    sync, written = os.fsync, []

    def full(descriptor):
        written.append(1)
        if len(written) > 2:  # the trial and one record fit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch, pytest.raises(of.SpecError, match="No space left on device; free some space") as problem:
        patch.setattr(files.os, "fsync", full)
        campaigns.run_job(config())
    (lost,) = [json.loads(record.message) for record in caplog.records if record.levelname == "ERROR"]
    assert lost["state"] == "done" and lost["workload"]["batch_size"] == 2
    assert records.records_frame(tmp_path / "records", shipped=tmp_path / "none")[0]["batch_size"].unique().to_list() == [1]
    assert campaigns.run_job(config()) == (1, 1, 0)
    assert isinstance(problem.value, records.Unwritten)
    again = pickle.loads(pickle.dumps(of.SpecError(str(problem.value))))  # what `campaign.main` makes of it
    assert str(again) == str(problem.value)


def test_a_damaged_record_is_named_and_measured_anew(config, workers, tmp_path, caplog):
    campaigns.run_job(config())
    path = sorted((tmp_path / "records").iterdir())[0]
    path.write_text(path.read_text()[:100])
    assert campaigns.run_job(config()) == (1, 1, 0)
    assert str(path) in caplog.text and "damaged" in caplog.text and path.exists()


def test_an_interrupted_job_keeps_what_it_has(config, workers, monkeypatch):
    write, written = records.write_record, []

    def once(*arguments):
        if written:
            raise KeyboardInterrupt
        written.append(write(*arguments))
        return written[0]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(records, "write_record", once)
        campaigns.run_job(config())
    assert campaigns.run_job(config()) == (1, 1, 0)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ({"campaign": SMALL | {"grids": [[2]]}}, r"^campaign.grids\[0\]: \[2\] is not \[columns, rows\]"),
        ({"campaign": SMALL | {"grids": []}}, "^campaign.grids: .* is not a list of"),
        ({"campaign": SMALL | {"lengths": 3}}, "^campaign.lengths: 3 is not a list of"),
        ({"campaign": SMALL | {"batch_sizes": ["x"]}}, r"^campaign.batch_sizes: .* is not a list of whole numbers"),
        ({"runs": 1.5}, "^runs: 1.5 is not a whole number"),
        ({"passes": ["all"]}, "^passes: 'all' is not one of"),
        ({"timeout_seconds": "long"}, "^timeout_seconds: 'long' is not a number or null"),
        ({"timeout_seconds": 0}, "^timeout_seconds: 0.0 is not a number of seconds above 0"),
        ({"retry_failed": "no"}, "^retry_failed: 'no' is not true or false"),
        ({"python": "/nonexistent"}, "^--python: '/nonexistent' is not there"),
    ],
)
def test_what_cannot_be(config, workers, rest, message):
    with pytest.raises(of.SpecError, match=message):
        campaigns.run_job(config(**rest))
    assert not workers


def test_an_override_that_the_campaign_sets(config, workers):
    with pytest.raises(of.SpecError, match="^workload.columns=2: has no effect, since a campaign sets it; choose campaign.grids"):
        campaigns.run_job(config(), ["workload=gundam", "workload.columns=2"])


TRIAL = ["model=tiny_test", "campaign=trial", "workload=tiny", "workload.global_px=64", "attention=eager", "device=cpu"]
TRIAL += ["runs=1", "warmup=0", "passes=[]"]


def launched(folder, launcher, *overrides, module="ocr_flops.evidence.records.campaign"):
    """Runs the campaign as a user does; returns what its jobs logged."""
    jobs = folder / launcher
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            module,
            "--multirun",
            *TRIAL,
            f"hydra/launcher={launcher}",
            *overrides,
            f"hydra.sweep.dir={jobs}",
        ],
        env={**os.environ, "OCR_FLOPS_RECORDS": str(folder / "records"), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return "".join(path.read_text() for path in sorted(jobs.rglob("campaign.log")))


@pytest.mark.verification
def test_hydra_launchers_spread_jobs(tmp_path):
    """By processes, then as Slurm would, each job with a worker of its own, into one folder; what is recorded is not run again."""
    for plugin in ("joblib", "submitit"):
        if importlib.util.find_spec("hydra_plugins") is None or not importlib.util.find_spec(f"hydra_plugins.hydra_{plugin}_launcher"):
            pytest.skip(f"the launcher {plugin} is not installed")
    first = launched(tmp_path, "joblib", "dtype=bf16,fp32", "hydra.launcher.n_jobs=2")
    assert first.count("measured 1, recorded before 0, failed 0") == 2
    second = launched(tmp_path, "submitit_local", "dtype=fp32,fp16", module="ocr_flops.measure.campaign")  # its older name
    assert second.count("measured 1, recorded before 0, failed 0") == 1 and second.count("measured 0, recorded before 1, failed 0") == 1
    frame, problems = records.records_frame(tmp_path / "records", shipped=tmp_path / "none")
    assert problems == [] and set(frame["state"]) == {"done"} and frame.height == 9
    assert sorted(set(frame["dtype"])) == ["bf16", "fp16", "fp32"] and frame["record_id"].n_unique() == 3
