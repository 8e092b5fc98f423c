"""The command line gives the numbers of the Python API, writes whole files, and answers bad input with one line."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops import cli, units
from ocr_flops.cli import console
from ocr_flops.cost.stage_groups import COLUMNS
from ocr_flops.spec.reading import config_dir

GRID = ["workload.columns=2", "workload.rows=1", "workload.output_tokens=100"]


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    try:
        code = cli.main(list(arguments))
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        (["engine=remote_code", "attention=vendor"], {"engine": "remote_code"}),
        (["attention=eager", "prefill_logits=all"], {"attention": "eager", "prefill_logits": "all"}),
        (["attention=flash", "cache=static", "dtype=fp16"], {"attention": "flash", "cache": "static", "dtype": "fp16"}),
        (["attention.sam=eager", "dtype=fp32"], {"attention": of.AttentionSpec("mixed", {"sam": "eager"}), "dtype": "fp32"}),
        (["model=tiny_test"], {}),
    ],
)
def test_json_is_the_python_api(capsys, overrides, options):
    code, text, _ = run(capsys, "estimate", *GRID, *overrides, "--format", "json")
    assert code == 0
    data = json.loads(text)
    result = of.estimate(of.load_model(data["model"]), of.Workload.from_grid(2, 1, output_tokens=100), **options)
    for level, frame in (("stages", result.stages), ("modules", result.modules)):
        assert len(data[level]) == frame.height
        for ours, row in zip(frame.iter_rows(named=True), data[level], strict=True):
            for column in (*COLUMNS, "stage", "arithmetic_intensity", "image_tokens", "engine", "dtype", "cache", "evidence"):
                assert row[column] == ours[column], column
    assert data["footprint"] == result.footprint._asdict()
    workload = {"columns": 2, "rows": 1, "tiles": 2, "prompt_tokens": 10, "output_tokens": 100, "batch_size": 1}
    assert workload.items() <= data["workload"].items()
    assert data["workload"]["context_tokens"] == data["workload"]["image_tokens"] + 10 == 493
    assert {"model", "engine", "attention", "dtype", "workload", "footprint", "stages", "modules"} <= set(data)


def test_csv_is_the_frame_of_modules(capsys, model):
    _, text, _ = run(capsys, "estimate", *GRID, "attention=sdpa", "--format", "csv")
    assert not text.endswith("\n\n")
    rows = list(csv.DictReader(io.StringIO(text)))
    modules = of.estimate(model, of.Workload.from_grid(2, 1, output_tokens=100), "sdpa").modules
    assert len(rows) == modules.height
    for row, ours in zip(rows, modules.iter_rows(named=True), strict=True):
        assert row["module"] == ours["module"]
        assert {column: int(row[column]) for column in COLUMNS} == {column: ours[column] for column in COLUMNS}


def test_the_table_shows_the_same_numbers_rounded(capsys, model):
    _, text, _ = run(capsys, "estimate", *GRID, "attention=sdpa")
    numbers = of.estimate(model, of.Workload.from_grid(2, 1, output_tokens=100), "sdpa").stage_numbers
    vision = next(line for line in text.splitlines() if "vision" in line)
    assert "1.916 T" in vision
    for column in ("vector_flops", "io_bytes", "peak_activation_bytes"):
        assert units.si(numbers["vision"][column], "B" if column.endswith("bytes") else "", digits=4) in vision
    assert "2 x 1 tiles" in text and "483 image + 10 prompt tokens, 100 output tokens" in text


@pytest.mark.parametrize("width", [80, 100, 140])
def test_tables_fit_the_terminal(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for command in (["estimate", *GRID, "hardware=h200"], ["plan", *GRID, "--ttft", "0.5", "--price", "2"]):
        _, text, _ = run(capsys, *command)
        assert max(map(len, text.splitlines())) <= width and "…" not in text
        assert all(unit in text for unit in ("GB", "ms"))


def test_columns_are_chosen_by_name(capsys):
    _, text, _ = run(capsys, "estimate", *GRID, "--columns", "io_bytes")
    assert "DRAM traffic" in text and "tensor FLOPs" not in text
    code, _, error = run(capsys, "estimate", *GRID, "--columns", "speed")
    assert code == 2 and "speed" in error and "io_bytes" in error
    assert "'speed', 'cost' are not among" in run(capsys, "estimate", *GRID, "--columns", "speed,cost")[2]
    totals = pl.DataFrame({"n": ["a"], "pages": [12345], "fitting": [12345], "cost": [12345.6]})
    assert "12,345    12,345   12,300" in console.render_table(totals)
    _, text, _ = run(capsys, "plan", *GRID, "hardware=l4", "--columns", "device busy,TTFT, roofline,TPOT")
    assert "device busy   TTFT, roofline" in text and "(7.69–15.0) ms" in text and "pages a day   " not in text, (
        "a heading brings its range"
    )


def test_an_option_that_is_a_key_is_said_to_be_one(capsys):
    code, _, error = run(capsys, "estimate", "--output-tokens", "800")
    assert code == 2 and error == "ocr-flops estimate: --output-tokens: no such option, but a key: write workload.output_tokens=VALUE\n"


def test_groups_and_names_complete_in_the_shell():
    assert "attention=" in console.complete_override("at")
    assert "attention=eager" in console.complete_override("attention=")


def test_hardware_adds_times(capsys, model):
    _, text, _ = run(capsys, "estimate", *GRID, "hardware=h200", "--format", "json")
    data = json.loads(text)
    timing = of.estimate(model, of.Workload.from_grid(2, 1, output_tokens=100)).on(of.load_hardware("h200"))
    assert (data["hardware"], data["ttft_seconds"], data["tpot_seconds"]) == ("h200", timing.ttft_seconds, timing.tpot_seconds)
    assert [row["roofline_seconds"] for row in data["stages"]] == timing.stages["roofline_seconds"].to_list()
    assert "ttft_seconds" not in json.loads(run(capsys, "estimate", *GRID, "--format", "json")[1])


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        ("workload.columns=0", "columns"),
        ("workload.no_such_key=1", "no_such_key"),
        ("attention=sparkle", "sparkle"),
        ("workload.batch_size=-3", "batch_size"),
        ("hardware=no_such_gpu", "no_such_gpu"),
        ("workload.batch_size=many", "many"),
        ("workload=gundamm", "gundamm"),
        ("dtype=int8", "int8"),
        ("cache=none", "none"),
        ("engine=vlm", "vlm"),
        ("model=none", "none"),
        ("prefill_logits=some", "some"),
        ("stages=[]", "stages"),
        ("workload.prompt_tokens=-1", "prompt_tokens"),
        ("workload.output_tokens=1.5", "1.5"),
        ("workload.image_width_px=0", "height"),
        ("nonsense", "nonsense"),
        ("=", "="),
        ("workload.columns=[1,2]", "columns"),
        ("a b", "a b"),
        ("workload.columns=101 workload.rows=100", "columns"),
    ],
)
def test_bad_input_is_one_line(capsys, bad, names):
    code, out, error = run(capsys, "estimate", bad)
    assert (code, out) == (2, "")
    assert error.count("\n") == 1 and error.startswith("ocr-flops estimate: ") and names in error


@pytest.mark.parametrize(
    "overrides",
    [
        ["workload=tiny", "workload.columns=2"],
        ["attention=flash", "dtype=fp32"],
        ["workload.batch_size=65536", "workload.prompt_tokens=1000000"],
    ],
)
def test_input_that_does_not_fit_together_is_one_line(capsys, overrides):
    code, out, error = run(capsys, "estimate", *overrides)
    assert (code, out) == (2, "")
    assert error.count("\n") == 1 and error.startswith("ocr-flops estimate: ")


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["estimate", "--format", "xml"], ["app", "--port", "many"]])
def test_a_wrong_command_line_exits_2(capsys, arguments):
    code, out, error = run(capsys, *arguments)
    assert code == 2
    assert "Usage:" in error + out and "Traceback" not in error


@pytest.mark.parametrize("words", [["serving", "hardware=l4"], ["corpus", "a4@200:10"], ["compare", "model=deepseek_ocr,glm_ocr"]])
def test_what_counts_whole_pages_takes_no_stage_alone(capsys, words):
    code, _, error = run(capsys, *words, "stages=[decode]")
    assert code == 2 and "stages: decode alone" in error


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_out_writes_what_would_be_printed(capsys, tmp_path, output):
    _, printed, _ = run(capsys, "estimate", *GRID, "--format", output)
    folder = tmp_path / "new" / "folder"
    code, told, _ = run(capsys, "estimate", *GRID, "--format", output, "--out", str(folder))
    path = folder / f"estimate.{'txt' if output == 'table' else output}"
    assert (code, told) == (0, f"{path}\n")
    assert path.read_text(encoding="utf-8") == printed
    assert list(folder.iterdir()) == [path]  # and nothing half written


def test_out_replaces_an_older_file(capsys, tmp_path):
    (tmp_path / "estimate.json").write_text("x" * 100_000)
    assert run(capsys, "estimate", *GRID, "--format", "json", "--out", str(tmp_path))[0] == 0
    assert json.loads((tmp_path / "estimate.json").read_text())["model"] == "deepseek_ocr"


@pytest.mark.parametrize("inside", ["file", "file/below"])
def test_a_folder_that_cannot_be_is_one_line(capsys, tmp_path, inside):
    (tmp_path / "file").write_text("in the way")
    code, out, error = run(capsys, "estimate", "--out", str(tmp_path / inside))
    assert (code, out) == (2, "")
    assert error.count("\n") == 1 and error.startswith("ocr-flops estimate: --out: cannot write ")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_permission_is_one_line(capsys, tmp_path):
    tmp_path.chmod(0o500)
    code, _, error = run(capsys, "estimate", "--out", str(tmp_path))
    assert code == 2 and error.count("\n") == 1 and "choose a folder you can write to" in error


def test_configs_of_ones_own(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("OCR_FLOPS_CONFIGS", "")  # so that it is taken back in the end
    (tmp_path / "hardware").mkdir()
    shipped = (config_dir() / "hardware" / "l4.yaml").read_text()
    (tmp_path / "hardware" / "mine.yaml").write_text(shipped.replace("name: l4", "name: mine"))
    code, text, _ = run(capsys, "--config-dir", str(tmp_path), "plan", *GRID, "hardware=mine", "--format", "csv")
    assert code == 0 and text.splitlines()[1].startswith("mine,")
    monkeypatch.delenv("OCR_FLOPS_CONFIGS")
    code, _, error = run(capsys, "--config-dir", str(tmp_path / "none"), "estimate")
    assert (code, error) == (2, f"ocr-flops estimate: --config-dir: there is no folder {tmp_path / 'none'}\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_and_what_no_terminal_should_show_are_one_clear_line():
    command = f"{sys.executable} -m ocr_flops estimate"
    done = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "No space left on device; free some space" in done.stderr
    done = subprocess.run([*command.split(), "hardware=\x1b[31m"], capture_output=True, text=True)
    assert done.returncode == 2 and "\\x1b[31m" in done.stderr and "\x1b" not in done.stderr


def test_version(capsys):
    assert run(capsys, "--version")[:2] == (0, f"{of.__version__}\n")


def test_the_installed_command_runs_and_survives_a_closed_pipe():
    script = os.path.join(os.path.dirname(sys.executable), "ocr-flops")
    done = subprocess.run(f"{script} estimate --format json | head -c 1", shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{", "")


def test_plan_answers_in_every_format(capsys):
    _, text, _ = run(capsys, "plan", *GRID, "hardware=h200", "--ttft", "0.5", "--tpot", "0.02", "--price", "2", "--format", "json")
    data = json.loads(text)
    assert [row["target"] for row in data["required"]] == ["ttft", "tpot"]
    assert data["largest"]["batch_size"] > 1 and data["devices"][0]["hardware"] == "h200"
    _, text, _ = run(capsys, "plan", *GRID, "hardware=h200", "--format", "csv")
    assert len(text.splitlines()) == 2
    _, text, _ = run(capsys, "plan", *GRID, "--memory-gb", "24", "--ttft", "0.5")
    assert "TTFT of 500 ms needs" in text and "24.0 GB hold at most batch" in text
    _, text, _ = run(capsys, "plan", "stages=[vision]", "hardware=l4")
    assert "pages a day" not in text and "fastest:" not in text and "–" not in text  # no column without a figure


def test_plan_names_the_fastest_and_the_cheapest(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    options = ["--ttft", "0.5", "--price", "l4=0.8,H200=3", "--pages", "1e6", "--gpus", "8", "--batch", "best"]
    _, text, _ = run(capsys, "plan", *GRID, *options)
    assert "fastest of 46 GPUs that meets the target under transformers: " in text and "1,000,000 pages by 8 of it in " in text
    assert (
        "cheapest of 2 GPUs with a price, at 3 an hour, that meets the target under transformers: h200, batch " in text
        and "no bf16: use dtype=fp16 or fp32 (quadro_rtx_6000, " in text
    )
    assert "of pages cut beforehand; under an engine that batches continuously pages a day differ" in text
    assert "batches continuously" not in run(capsys, "plan", "model=glm_ocr", "hardware=l4")[1]  # no engine serves it
    devices = json.loads(run(capsys, "plan", *GRID, *options, "--format", "json")[1])["devices"]
    assert {row["hardware"] for row in devices if row["cost"] is not None} == {"l4", "h200"}
    monkeypatch.setenv("COLUMNS", "80")
    heads = [line.split("  ")[-1].strip() for line in run(capsys, "plan", *GRID, *options)[1].splitlines() if line.startswith("hardware ")]
    assert heads == ["meets target", "cost", "hours"]  # what was asked for is not left out for want of width
    assert "cheapest" not in run(capsys, "plan", *GRID, "--price", "1.2")[1].split("one batch")[0]  # at one price that is the fastest
    code, _, error = run(capsys, "plan", *GRID, "--price", "l4=0.8,1.2")
    assert (code, error) == (2, "ocr-flops plan: --price: one for all devices beside prices of devices; give either\n")


@pytest.mark.parametrize(
    "arguments", [["--ttft", "0"], ["--tpot", "-1"], ["--price", "nan"], ["--gpus", "0"], ["--memory-gb", "nan"], ["--batch", "worst"]]
)
def test_a_target_that_cannot_be_is_one_line(capsys, arguments):
    code, out, error = run(capsys, "plan", *GRID, *arguments)
    assert (code, out) == (2, "")
    assert error.count("\n") == 1 and error.startswith(f"ocr-flops plan: {arguments[0]}: ")


def test_overrides_may_stand_on_both_sides_of_an_option(capsys):
    assert cli.main(["estimate", "workload=tiny", "--format", "json", "workload.batch_size=3"]) == 0
    found = json.loads(capsys.readouterr().out)["workload"]
    assert (found["mode"], found["batch_size"]) == ("tiny", 3)
    assert cli.main(["estimate", "--colour", "red"]) == 2
    assert "--colour" in capsys.readouterr().err


@pytest.mark.parametrize("command", [name for group in cli.COMMANDS.values() for name in group])
def test_help_cuts_no_name_and_no_choice(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    code, text, _ = run(capsys, command, "--help")
    assert code == 0 and "…" not in text and max(map(len, text.splitlines())) <= 80


LONG = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)"  # a call that Python does not interrupt
BUSY = f"""import hashlib, sys
from ocr_flops import cli
cli.program = lambda *_, **_1: (print("on", flush=True), {LONG})
sys.exit(cli.main())
"""
DRAWING = f"""import hashlib, sys
from ocr_flops import cli
from ocr_flops.cli import console
def draw(*_, **_1):
    with console.show_bars() as bars:
        bars("drawing", 1, 2)
        {LONG}
cli.program = draw
sys.exit(cli.main())
"""
LOADING = """import os, signal, sys
class Stop:
    def find_spec(self, name, *_):
        if name == "ocr_flops.cli":
            print("on", flush=True)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stop())
from ocr_flops.__main__ import main
main()
"""


@pytest.mark.parametrize(("code", "exits"), [(BUSY, 130), (LOADING, -signal.SIGINT)])
def test_ctrl_c_ends_a_command_soon_and_without_a_traceback(code, exits):
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=20)[1], process.returncode) == ("", exits)


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of Unix")
def test_ctrl_c_shows_the_cursor_that_progress_has_hidden():
    ours, theirs = os.openpty()
    process, shown = subprocess.Popen([sys.executable, "-c", DRAWING], stdout=theirs, stderr=theirs), b""
    os.close(theirs)
    while b"drawing" not in shown:
        shown += os.read(ours, 1024)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # the other end is closed
        while more := os.read(ours, 1024):
            shown += more
    os.close(ours)
    assert process.wait() == 130 and b"Traceback" not in shown
    assert 0 <= shown.rfind(b"\x1b[?25l") < shown.rfind(b"\x1b[?25h")
