"""Learned models: programs that are shipped give the columns of a tape without torch, and what they cannot do is refused in a sentence."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

import ocr_flops as of
from ocr_flops.cost.execution_order import expand_nodes, order_operations
from ocr_flops.cost.models.learned import find_program, operations_of
from ocr_flops.spec.reading import config_dir, names

SHIPPED = sorted(path.stem for path in (config_dir() / "programs").glob("*.json"))
PAGE = of.Workload.from_image(1654, 2339, output_tokens=20)


def kernel(name):
    return find_program(of.load_model(name)).stages[0].attention


def test_every_program_belongs_to_a_model():
    assert SHIPPED
    assert set(SHIPPED) <= set(names("model"))


@pytest.mark.parametrize("name", SHIPPED)
def test_one_point_and_columns_are_equal(name):
    model = of.load_model(name)
    one = of.estimate(model, PAGE, kernel(name))
    columns = of.Workload.from_image(
        np.array([1654, 500, 1654]), np.array([2339, 700, 2339]), output_tokens=20, batch_size=np.array([1, 1, 3])
    )
    many = of.estimate(model, columns, kernel(name))
    assert one.stages.select("stage", "total_flops", "io_bytes", "peak_activation_bytes", "operators").rows() == (
        many.stages.head(3).select("stage", "total_flops", "io_bytes", "peak_activation_bytes", "operators").rows()
    )
    three = of.estimate(model, of.Workload.from_image(1654, 2339, output_tokens=20, batch_size=3), kernel(name))
    assert three.stages["total_flops"].to_list() == many.stages.tail(3)["total_flops"].to_list()
    assert one.footprint.total_bytes > sum(one.config.parameters.values()) * 2
    timing = one.on("h200")
    assert timing.expected_ttft.low < timing.expected_ttft.value < timing.expected_ttft.high
    assert timing.bound_ttft_seconds <= timing.ttft_seconds


@pytest.mark.parametrize("name", SHIPPED)
def test_layers_and_loops_run_in_their_order(name):
    """Folded layers unfold to as many launches as the costs say, each layer after the one before."""
    program = find_program(of.load_model(name))
    for stage in program.stages:
        if stage.is_one and not stage.loops:
            operations = operations_of(program, stage)
            order = list(expand_nodes(order_operations(operations), lambda node: node.times))
            assert len(order) == sum(operation.costs["operators"] for operation in operations)


MANY_READ_FIRST = """
import sys, threading
from ocr_flops.cost.models.learned import find_program
from ocr_flops.spec.catalog import load_model

sys.setswitchinterval(1e-6)
model, all_here = load_model(sys.argv[1]), threading.Barrier(8)
threads = [threading.Thread(target=lambda: (all_here.wait(), find_program(model))) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_that_read_a_first_program_together_leave_the_process_alive():
    """As eight visitors do who open the app at once: half of such processes ended in a segmentation fault."""
    processes = [subprocess.Popen([sys.executable, "-c", MANY_READ_FIRST, SHIPPED[0]]) for _ in range(6)]
    assert [process.wait() for process in processes] == [0] * len(processes)


def test_no_torch_is_needed():
    code = "import sys, ocr_flops as of; m = of.load_model(sys.argv[1]); e = of.estimate(m, of.Workload.from_image(900, 900), sys.argv[2])"
    code += "; e.footprint, e.on('l4').expected_ttft; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code, SHIPPED[0], kernel(SHIPPED[0])], check=True)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"dtype": "fp16"}, "dtype: 'fp16' was not learned for glm_ocr; choose bf16"),
        ({"cache": "static"}, "cache: 'static' was not learned"),
        ({"prefill_logits": "all"}, "prefill_logits: 'all' was not learned"),
        ({"engine": "remote_code"}, "engine: 'remote_code' is not known to run GLM-OCR"),
        ({"attention": "flash"}, "attention: 'flash' is not one of eager, sdpa"),
    ],
)
def test_what_was_not_learned_is_refused(choice, message):
    with pytest.raises(of.SpecError, match=message):
        of.estimate(of.load_model("glm_ocr"), PAGE, **choice)


def test_a_model_takes_the_page_as_its_own_processor_does():
    model = of.load_model("glm_ocr")
    grid = of.Workload.from_grid(2, 3, "gundam", output_tokens=20)  # of which only the views are known: 1280 x 1920 px
    assert of.estimate(model, grid).workload.image_tokens == of.estimate(model, of.Workload.from_image(1280, 1920)).workload.image_tokens
    back = of.estimate(of.load_model(), of.estimate(model, PAGE).workload).workload
    assert (back.columns, back.rows, back.mode) == (2, 3, "gundam")


def test_a_damaged_program_is_refused_by_name(tmp_path, monkeypatch):
    for folder in ("model", "programs"):
        (tmp_path / folder).mkdir()
    shutil.copy(config_dir() / "model" / "glm_ocr.yaml", tmp_path / "model" / "broken.yaml")
    text = (tmp_path / "model" / "broken.yaml").read_text().replace("name: glm_ocr", "name: broken")
    (tmp_path / "model" / "broken.yaml").write_text(text)
    (tmp_path / "programs" / "broken.json").write_text('{"schema": 1, "architecture": ')
    monkeypatch.setenv("OCR_FLOPS_CONFIGS", str(tmp_path))
    with pytest.raises(of.SpecError, match=r"broken\.json is damaged"):
        of.estimate(of.load_model("broken"), PAGE)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["unlimited_ocr", "deepseek_ocr2"])
def test_experts_that_are_all_hit_are_read_once(name, attention):
    """Verification leaves their weights out on both sides, so that it cannot see how often they are charged."""
    model = of.load_model(name)
    page = of.Workload(0, image_width_px=1654, image_height_px=2339, prompt_tokens=4000, page_rule=model.page_rule)
    found = of.estimate(model, page, attention=attention, stages=["prefill"])
    held = found.config.parameters["decoder.routed_experts"] * 2
    assert found.module_numbers["prefill", "decoder.routed_experts"]["weight_io_bytes"] == held
    rows = found.on("l4").modules.filter(module="decoder.routed_experts")
    by_hand = of.estimate("deepseek_ocr", of.Workload.from_grid(2, 3, prompt_tokens=4000), attention=attention, stages=["prefill"])
    same = by_hand.on("l4").modules.filter(module="decoder.routed_experts")
    assert rows["expected_seconds"].item() == pytest.approx(same["expected_seconds"].item(), rel=0.1)
