"""`ocr-flops corpus`: the answer in words, the same numbers as data, and what is refused."""

import json
from datetime import datetime, time, timedelta

import polars as pl
import pytest

from ocr_flops.cli import main
from ocr_flops.cli.corpus import _hours
from ocr_flops.spec.reading import config_dir
from tests.support.images import encoded


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(capsys, *words):
    assert main(["corpus", *words]) == 0
    return capsys.readouterr().out


def test_which_is_cheaper_and_how_long_eight_take(capsys):
    words = ("a4@200:1000000", "--price", "l4=0.8", "--price", "h100_sxm=3", "--lengths", "800", "--gpus", "8")
    text = run(capsys, *words)
    found = json.loads(run(capsys, *words, "--json"))
    cheapest, other = found["plans"]
    assert text.startswith("1,000,000 pages in Gundam, served by vLLM (modelled): 903 M image, 10.0 M prompt, 800 M output tokens")
    assert f"Cheapest and fastest of 2 GPUs: {cheapest['label']} at 3 USD an hour: " in text and "8 of them take" in text
    assert other["hardware"] == "l4" and f"NVIDIA L4 (24 GB) costs {other['cost'] / cheapest['cost']:.3g} times as much" in text
    assert cheapest["cost"] == pytest.approx(3 * cheapest["gpu_hours"])
    assert (found["totals"]["image_tokens"], found["totals"]["output_tokens"]) == (903_000_000, 800_000_000)
    assert found["groups"][0]["pages"] == 1_000_000 and isinstance(found["groups"][0]["total_flops"], int)
    assert {row["name"] for row in found["alternatives"]} >= {"base", "tiny", "transformers", "sglang"}
    batches = {row["label"]: row for row in json.loads(run(capsys, *words, "--json", "engine=transformers"))["plans"]}
    [told] = [line for line in text.splitlines() if line.startswith("In batches under transformers")]
    for row in found["plans"]:
        assert f"{row['label']} {batches[row['label']]['cost']:.0f} USD (" in told and f"instead of {row['cost']:.3g}" in told


def test_questions(capsys):
    text = run(capsys, "a4:5000", "hardware=l4", "--price", "l4=1", "--gpus", "2", "--deadline", "90m", "--budget", "3")
    assert "In 1.5 h: all pages take " in text and " x NVIDIA L4 (24 GB); 2 x NVIDIA L4 (24 GB) read " in text
    assert "3 USD pay for " in text


def test_a_deadline_is_a_day_or_a_moment():
    now = datetime.now()
    midnight = (datetime.combine(now, time()) + timedelta(days=1)).astimezone()
    for day in (f"{now:%Y-%m-%d}", f"{now:%A}", f"{now:%A}".lower()):
        assert _hours(day) == pytest.approx((midnight - now.astimezone()) / timedelta(hours=1), abs=0.01)
    assert _hours(f"{now + timedelta(days=3):%A}") == pytest.approx(_hours(f"{now + timedelta(days=3):%Y-%m-%d}"), abs=0.01)
    for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H", "%Y%m%dT%H%M"):
        assert _hours(f"{now + timedelta(days=2):{form}}") == pytest.approx(47.5, abs=1.6)  # an hour more or less where clocks change
    assert _hours("1.5d") == 36


def test_a_table_and_prices_in_a_file(capsys, tmp_path):
    pl.DataFrame({"width": [1654, 800, 0], "height": [2339, 600, 5], "output_tokens": [900, 30, 1]}).write_csv(tmp_path / "pages.csv")
    (tmp_path / "prices.yaml").write_text("currency: EUR\nl4: 0.7\na100_40gb: 1.1\n")
    text = run(capsys, str(tmp_path / "pages.csv"), "--prices", str(tmp_path / "prices.yaml"))
    assert "2 pages in Gundam" in text and "Outputs: the table's column output_tokens." in text
    assert "Left out: 1 page, as width_px is missing or no whole number" in text
    assert "EUR" in text and "A100" in text
    assert run(capsys, str(tmp_path / "*.csv"), "hardware=l4", "--format", "csv").count("\n") == 3


def test_a_price_of_a_device_of_ones_own(capsys, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text((config_dir() / "hardware" / "l4.yaml").read_text().replace("name: l4", "name: My_L4"))
    words = ("a4:1000", "--lengths", "400", "--format", "json")
    found, same = (
        json.loads(run(capsys, *words, f"hardware=[{gpu},h100_sxm]", "--price", f"{name}=0.8"))["plans"]
        for gpu, name in ((own, "My_L4"), ("l4", "l4"))
    )
    assert {row["hardware"]: row["cost"] for row in found} == {
        "My_L4": next(row["cost"] for row in same if row["hardware"] == "l4"),
        "h100_sxm": None,
    }
    assert main(["plan", f"hardware={own}", "--price", "my_l4=0.8"]) == 0


def test_a_folder_with_a_broken_file(capsys, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "a.png").write_bytes(encoded("PNG", (1654, 2339)))
    (scans / "broken.jpg").write_bytes(b"no image")
    text = run(capsys, str(scans), "hardware=l4", "--refused", str(tmp_path / "refused.csv"))
    assert text.startswith("1 page in Gundam") and "Left out 1: 1 x neither an image nor a PDF" in text
    assert pl.read_csv(tmp_path / "refused.csv")["file"].to_list() == [str(scans / "broken.jpg")]


def test_threads_that_cut_pages_are_named_where_they_limit(capsys):
    words = ("a4:100000", "hardware=h100_sxm", "--lengths", "100")
    text, more = run(capsys, *words), run(capsys, *words, "--preprocess-workers", "32")
    assert "threads that cut pages on the CPU" in text
    assert "that cut pages on" not in more
    assert main(["corpus", *words, "engine=transformers", "--preprocess-workers", "2"]) == 2
    assert main(["corpus", *words, "workload.batch_size=2"]) == 2


def test_an_engine_that_serves(capsys):
    text = run(capsys, "a4:1000", "hardware=l4", "engine=vllm", "--lengths", "400")
    row = json.loads(run(capsys, "a4:1000", "hardware=l4", "engine=vllm", "--lengths", "400", "--json"))["plans"][0]
    assert row["concurrency"] > 1 and row["batch_size"] is None and row["limited_by"]
    assert "Limited by " in text and "in the steady state of as many pages in flight as the GPU holds" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "pages: 'nothing' is no folder and no table"),
        (["nothing.csv"], "pages: nothing.csv does not exist"),
        (["a4:5", "--price", "l4"], "--price: 'l4' is no price above 0"),
        (["a4:5", "--price", "l5=1"], "--price: 'l5' is not one of"),
        (["a4:5", "--price", "l4=1", "hardware=h200"], "prices: 'l4' is not one of h200"),
        (["a4:5", "--deadline", "soon"], "--deadline: 'soon' is no time, as in 90m"),
        (["a4:5", "--deadline", "9" * 400 + "d"], "is no time, as in 90m"),
        (["a4:5", "--deadline", "2020-01-01"], "--deadline: '2020-01-01' is not ahead"),
        (["a4:5", "--budget", "5", "hardware=l4"], "budget: needs a price, as in --price l4=0.8"),
        (["a4:5", "workload.columns=2"], "workload.columns: has no effect; a corpus has pages of its own"),
        (
            ["a4:5", "model=glm_ocr", "workload=tiny"],
            "workload: is of DeepSeek-OCR's resolution modes; GLM-OCR takes pages by a rule of its own",
        ),
        (["a4:5", "attention=[eager,sdpa]"], "attention: one value; only hardware may be a list"),
        (["a4:5", "--lengths", "5", "workload.output_tokens=5"], "workload.output_tokens: given beside --lengths"),
        (["a4:5,b4:6"], "pages: 'b4:6' is not FORMAT@DPI:PAGES or WxH:PAGES"),
        (["a4@9:5"], "9 dpi is not from 36 to 1200"),
    ],
)
def test_wrong_words_are_one_line(capsys, words, message):
    assert main(["corpus", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
