"""What of the real model a page may run: what its setting says, with code that whoever started the app offers; else it says what is missing."""

from dataclasses import replace

import pytest

import ocr_flops as of
from ocr_flops.app import runs, session, spot_checks, views
from ocr_flops.app.setting import Setting
from ocr_flops.app.tabs import controls, measured, spot_check
from ocr_flops.errors import SpecError
from tests.support.remote_snapshot import make

POINT = {"mode": "tiny", "output_tokens": 2, "prompt_tokens": 3}


@pytest.fixture
def offered(tiny, tmp_path, monkeypatch):
    """A process that was started with a snapshot, which is trusted."""
    for name in (runs.SNAPSHOT, runs.TRUST):
        monkeypatch.setenv(name, "")  # so that it is taken back
    folder = tmp_path / "published"
    make(tiny, folder)
    runs.offer_snapshot(folder, True)
    return folder


def shown(model, **values):
    return views.Results(model, Setting(**POINT | values))


@pytest.mark.parametrize(
    ("values", "ran"),
    [
        ({}, ("transformers", "sdpa/sdpa/sdpa", "bf16")),
        ({"attention": "eager", "dtype": "fp32"}, ("transformers", "eager/eager/eager", "fp32")),
        ({"attention": "all"}, ("transformers", "sdpa/sdpa/sdpa", "bf16")),  # as the cards: the engine's own
        ({"engine": "remote_code"}, ("remote_code", "sdpa/sdpa/eager", "bf16")),
        ({"engine": "remote_code", "attention": "all"}, ("remote_code", "sdpa/sdpa/eager", "bf16")),
    ],
)
def test_what_the_setting_says_is_run_and_compared_in_flops_traffic_and_peak(tiny, serve, offered, values, ran):
    results = shown(tiny, **values)
    (told,) = serve(runs.request_check(results, spot_checks.SCOPES[0], "meta"))
    assert (told.ran["engine"], "/".join(told.ran["attention"].values()), told.ran["dtype"]) == ran
    frame = spot_checks.build_frame(tiny, told)
    numbers = results.main.with_workload(output_tokens=2)
    for (stage, module), row in numbers.module_numbers.items():
        (seen,) = frame.filter(stage=stage, module=module).to_dicts()
        assert (seen["measured_io_bytes"], seen["measured_peak_bytes"]) == (row["io_bytes"], row["peak_activation_bytes"]), (stage, module)
    assert spot_checks.count_differences(frame) == 0
    assert spot_checks.verdict(frame).startswith(
        f"All {3 * (frame.height - 3)} numbers of modules (FLOPs, bytes moved, peak bytes; vision,"
    )
    config = results.main.config
    assert list(spot_checks.find_traced(spot_checks.rows_beside([frame], results.setting), config)) == ["vision", "prefill", "decode"]
    assert not spot_checks.find_traced(spot_checks.rows_beside([frame], replace(results.setting, batch_size=2)), config)
    wrong = frame.with_columns(measured_peak_bytes=frame["measured_peak_bytes"] + (frame["module"] == "sam.mlp"))
    assert spot_checks.count_differences(wrong) == 1 and spot_checks.verdict(wrong).startswith("1 of ")


def test_a_page_without_output_is_compared(tiny, serve, offered):
    (told,) = serve(runs.request_check(shown(tiny, engine="remote_code", output_tokens=0), spot_checks.SCOPES[0], "meta"))
    assert spot_checks.count_differences(spot_checks.build_frame(tiny, told)) == 0


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"attention": "flash"}, "attention.sam: 'flash' cannot be run here; choose from eager, sdpa"),
        ({"cache": "static"}, "cache: 'static' cannot be run here"),
        ({"engine": "remote_code"}, "engine: no snapshot of the published code is known here; start the app with --snapshot DIR"),
    ],
)
def test_what_is_missing_is_said_on_the_button(tiny, monkeypatch, values, why):
    monkeypatch.delenv(runs.SNAPSHOT, raising=False)
    results = views.evaluate(tiny, Setting(**POINT | values))
    assert runs.missing(runs.request_check, results, "current point", "auto").startswith(why)
    page = spot_check.spot_check(results, controls.spot_check_controls(), "RUN").text
    assert "Cannot be run: " in page and "RUN" not in page.replace("RUN_", "")
    assert ("Cannot be run" in measured.measured(results, controls.timing_controls(), "RUN").text) == ("attention" not in values)


def test_trust_is_given_by_whoever_starts_the_app(tiny, tmp_path, offered, monkeypatch):
    with pytest.raises(of.SpecError, match="^--snapshot: pages could run the Python code in .* add --trust-remote-code"):
        runs.offer_snapshot(offered, False)
    with pytest.raises(of.SpecError, match="^--snapshot: .* holds no config.json"):
        runs.offer_snapshot(tmp_path, True)
    monkeypatch.setenv(runs.TRUST, "no")
    with pytest.raises(of.SpecError, match="^engine: the published code is not trusted here"):
        runs.request_check(shown(tiny, engine="remote_code"), spot_checks.SCOPES[0], "meta")


def test_the_published_code_is_timed_too(tiny, offered):
    request = runs.plan_timing(shown(tiny, engine="remote_code"), "cpu").request([])
    assert (request.engine, request.snapshot, request.trust_remote_code, request.kind) == ("remote_code", str(offered), True, "time")


def test_a_server_that_runs_nothing_says_so(monkeypatch):
    results = views.evaluate(of.load_model(), Setting())
    monkeypatch.setenv(runs.NO_RUNS, "true")
    for reason in (runs.missing(runs.request_check, results, spot_checks.SCOPES[0], "meta"), runs.missing(runs.check_allowed)):
        assert reason == "this server runs no model (--no-runs)"
    with pytest.raises(SpecError, match="--no-runs"):
        session.audit_counter(results, "me")
    monkeypatch.delenv(runs.NO_RUNS)
    assert runs.missing(runs.check_allowed) is None


def test_a_run_on_the_processor_leaves_half_of_the_memory(model):
    large = views.Results(model, Setting(batch_size=512, attention="eager"))
    assert runs.missing(runs.request_check, large, spot_checks.SCOPES[0], "meta") is None
    with pytest.raises(SpecError, match=r"a run on cpu would need 1\..* TB and may take .* GB here"):
        runs.request_check(large, spot_checks.SCOPES[0], "cpu")
    assert "would need" in runs.missing(runs.plan_timing, large, "cpu")


def test_every_point_of_a_run_is_asked_for_its_memory_and_a_container_may_have_less(model, monkeypatch, tmp_path):
    small = views.Results(model, Setting(source="grid", columns=1, rows=1, batch_size=2, attention="eager"))
    monkeypatch.setattr(runs, "CGROUP", tmp_path / "memory.max")
    for limit, refused in (("26000000000", [False, True]), ("max", [False, False])):
        runs.CGROUP.write_text(f"{limit}\n")
        monkeypatch.setattr(runs.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 10**9}.get)
        asked = [runs.missing(runs.request_check, small, scope, "cpu") for scope in spot_checks.SCOPES]
        assert [problem is not None and "may take 13.0 GB" in problem for problem in asked] == refused
