"""`ocr-flops serving`: the newcomer's question in one command each, and what is wrong in one line."""

import json
import signal

import pytest

from ocr_flops import cli

PAGE = ["workload=gundam", "workload.output_tokens=400"]


def run(capsys, *words):
    code = cli.main(["serving", *PAGE, *words])
    return code, capsys.readouterr()


def test_a_target_is_answered_in_a_sentence_with_the_command_to_type(capsys):
    code, shown = run(capsys, "hardware=l4", "--ttft-p95", "5")
    assert code == 0 and "pages a day" in shown.out and "p95 first token within 5.00 s" in shown.out
    assert "vllm serve deepseek-ai/DeepSeek-OCR" in shown.out and "rests on" in shown.out


@pytest.mark.parametrize(("tokens", "is_said"), [(7000, False), (10_000, True)])
def test_requests_beyond_the_models_context_are_said_to_be(capsys, tokens, is_said):
    code, shown = run(capsys, "hardware=l4", f"workload.output_tokens={tokens}", "--concurrency", "4")
    assert code == 0 and (f"{tokens + 913:,} tokens: the published checkpoint was made for 8,192" in shown.out) == is_said


def test_json_has_every_figure_with_its_range(capsys):
    code, shown = run(capsys, "hardware=a100_40gb", "--concurrency", "64", "--replicas", "8", "--json")
    found = json.loads(shown.out)
    assert code == 0 and found["replicas"] == 8 and found["concurrency"] == 64
    for name in ("pages_per_day", "pages_per_second", "requests_per_second", "output_tokens_per_second"):
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert found["ttft_low_seconds"] < found["ttft_seconds"] < found["ttft_high_seconds"]
    assert {"max_concurrency", "kv_capacity_tokens", "step_seconds", "tpot_seconds", "device_busy_share", "limited_by", "time_basis"} <= {
        *found
    }


def test_gpus_and_loads_make_rows(capsys):
    code, shown = run(capsys, "--gpus", "l4,a100_40gb", "--concurrency", "1,8", "--format", "csv")
    assert code == 0 and len(shown.out.strip().splitlines()) == 5
    code, shown = run(capsys, "--gpus", "l4,t4", "--rate", "500")
    assert code == 0 and "Unstable: the queue grows" in shown.out and "only of fp16, fp32" in shown.out


def test_a_simulation_gives_percentiles_and_the_steady_state_beside_it(capsys):
    cli._watch_interrupts()  # as in a process of its own: it would not wait for what is done to be said
    words = ("hardware=l4", "--simulate", "--requests", "300", "--rate", "1", "--output-p95", "900", "--loops", "0.02", "--json")
    code, shown = run(capsys, *words)
    found, again = json.loads(shown.out), json.loads(run(capsys, *words)[1].out)
    assert code == 0 and found["times"] == again["times"] and found["requests"] == 300
    assert [row["time"] for row in found["times"]] == ["ttft", "tpot", "total"]
    assert signal.set_wakeup_fd(-1) == -1
    played = run(capsys, "hardware=l4", "--simulate", "--requests", "90", "--rate", "1", "--ttft-p95", "0.01", "--tpot-p95", "9")[1].out
    assert "It does not keep a p95 first token within 10.0 ms." in " ".join(played.split()) and "--requests" not in played
    assert "more --requests come nearer" in run(capsys, "hardware=l4", "--simulate", "--requests", "90", "--concurrency", "30")[1].out


def test_the_best_of_each_gpu_has_a_concurrency_and_a_command_of_its_own(capsys):
    best = ("--best",)
    rows = [json.loads(run(capsys, f"hardware={gpu}", *best, "--json")[1].out) for gpu in ("l4", "h100_sxm")]
    code, shown = run(capsys, "--gpus", "l4,h100_sxm", *best, "--json")
    both = json.loads(shown.out)["rows"]
    assert code == 0 and [row["concurrency"] for row in both] == [row["concurrency"] for row in rows]
    assert both[0]["concurrency"] != both[1]["concurrency"]
    shown = run(capsys, "--gpus", "l4,h100_sxm", *best)[1].out
    assert all(f"--max-num-seqs {row['concurrency']} " in shown for row in rows)


@pytest.mark.parametrize("options", [("--ttft-p95", "5"), ("--best", "--ttft-p95", "1.5", "--output-p95", "800")])
def test_a_p95_that_is_printed_is_simulated_again_at_the_rate_beside_it(capsys, options):
    words = ("hardware=l4", *options, "--requests", "1000", "--json")
    found = json.loads(run(capsys, *words)[1].out)
    budget = ("--max-num-batched-tokens", str(found["max_num_batched_tokens"]))
    played = [run(capsys, *words, "--simulate"), run(capsys, *words, *budget, "--simulate", "--rate", f"{found['best_rate']:g}")]
    assert [json.loads(one[1].out)["times"][0]["p95_seconds"] for one in played] == [found["ttft_p95_seconds"]] * 2
    assert found["limited_by"] in ("ttft_p95", "cache")


def test_a_p95_near_the_capacity_is_said_to_be_of_its_seed(capsys):
    words = ("hardware=l4", "--requests", "500")
    found = " ".join(run(capsys, *words, "--ttft-p95", "1")[1].out.split())
    assert "over 5 seeds), kept with 4 of them. Limited by" in found
    for rate, is_near in (("1", False), ("3.7", True)):
        assert ("another --seed has another p95" in " ".join(run(capsys, *words, "--simulate", "--rate", rate)[1].out.split())) is is_near


def test_what_is_served_is_said_and_what_to_start(capsys):
    shown = run(capsys, "hardware=l4", "--mix", "tiny:800=1,base=3", "--replicas", "8", "--concurrency", "999")[1].out
    assert "25 % of requests: tiny" in shown and "75 % of requests: base" in shown and "batch" not in shown.split("One")[0].split("8 x")[0]
    assert "256 of 999" in shown and "which brings at most" in shown and "Start the command below 8 times" in shown
    none = run(capsys, "hardware=l4", "--ttft-p95", "0.1", "--requests", "500")[1].out
    assert "keeps a p95 first token within 100 ms: simulated p95 first token 3" in none and "vllm serve" not in none


def test_outputs_that_differ_count_in_the_steady_state_too(capsys):
    differ = ("hardware=l4", "--concurrency", "64", "--output-quantiles", "0=50,0.5=700,1=3000", "--loops", "0.01")
    said = run(capsys, *differ)[1].out
    assert "Outputs are by quantiles instead, 0=50, 0.5=700, 1=3000; 1 % repeat themselves up to 8,192." in said
    steady = json.loads(run(capsys, *differ, "--json")[1].out)["requests_per_second"]
    played = json.loads(run(capsys, *differ, "--simulate", "--requests", "4000", "--json")[1].out)["requests_per_second"]
    assert steady == pytest.approx(played, rel=0.03)
    few = run(capsys, *differ, "--requests", "3", "--seed", "4", "--json")[1].out
    assert json.loads(few)["requests_per_second"] == pytest.approx(steady, rel=0.01), "no request of three is seen"
    assert "Outputs are" not in run(capsys, "hardware=l4", "--concurrency", "64")[1].out


def test_a_rate_with_a_target_counts_gpus(capsys):
    code, shown = run(capsys, "--gpus", "l4,a100_40gb", "--rate", "10", "--ttft-p95", "3", "--requests", "1000", "--json")
    rows = json.loads(shown.out)["rows"]
    assert code == 0 and [row["hardware"] for row in rows] == ["a100_40gb", "l4"] and rows[0]["gpus"] <= rows[1]["gpus"]
    alike = run(capsys, "--gpus", "h100_sxm,h200", "--rate", "10", "--ttft-p95", "9", "--requests", "500")[1].out
    assert "the fewest of the GPUs listed; 1 other takes as few. Limited by threads that cut pages on the CPU." in alike


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "hardware: missing"),
        (["hardware=l4", "--gpus", "8"], "--replicas 8"),
        (["hardware=l4", "--gpus", "t4"], "--gpus: hardware=l4 is given too"),
        (["hardware=l4", "--concurrency", "x"], "--concurrency: 'x'"),
        (["hardware=l4", "--mix", "bse=1"], "--mix: 'bse'"),
        (["hardware=l4", "--simulate", "--arrivals", "sometimes"], "--arrivals: 'sometimes'"),
        (["hardware=l4", "--ttft-p95", "5", "--arrivals", "constant"], "--arrivals: 'constant' is played by --simulate alone"),
        (["hardware=l4", "engine=transformers"], "does not batch continuously"),
        (["hardware=l4", "hardware.memory_bytes=7e9"], "are missing"),
        (["hardware=l4", "--concurrency", "64", "--ttft-p95", "5"], "--concurrency: a target"),
        (["hardware=l4", "--ttft-p95", "-1"], "ttft_p95: -1.0"),
    ],
)
def test_what_is_wrong_is_one_line(capsys, words, message):
    code, shown = run(capsys, *words)
    assert code == 2 and message in shown.err and shown.err.count("\n") == 1 and not shown.out
