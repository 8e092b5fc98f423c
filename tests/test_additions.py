"""A device is one YAML; an attention mode, an engine (one that serves too) and a model are one class and one YAML each: all are added here."""

import json

import pytest
import yaml

import ocr_flops as of
from ocr_flops.app.tabs.serving import serving_controls
from ocr_flops.charts.savings import savings
from ocr_flops.cli import main
from ocr_flops.cost import ops
from ocr_flops.cost.blocks.attention import Flash, attention_modes
from ocr_flops.cost.engines.base import Engine
from ocr_flops.cost.engines.vllm import Vllm
from ocr_flops.cost.models.deepseek_ocr import DeepSeekOcr, Vision
from ocr_flops.cost.towers.sam import Sam
from ocr_flops.reports.estimate_report import report_markdown
from ocr_flops.reports.estimate_subject import Subject
from ocr_flops.reports.tables import modules_table
from ocr_flops.spec import catalog
from ocr_flops.spec.reading import config_dir, names
from ocr_flops.timing.serving.steady import prepare


class WithoutScores(Flash, name="without_scores"):
    """Flash attention that computes no softmax: the name of a mode, and what it does otherwise."""

    def attend(self, tape, query, key, value, layout, mask=None):
        attended = super().attend(tape, query, key, value, layout, mask)
        tape.operations[-1].costs["vector_flops"] = 0
        return attended


class Compiled(Engine, name="compiled"):
    """Runs plainly, and hands logits on in 8 bits."""

    def finish_logits(self, tape, logits):
        return tape.cast(logits, 1)


class Third(Vllm, name="third"):
    """Serves as vLLM does, with few sequences and prompts in steps of their own."""

    mixes_prefill = False

    def serving_options(self, hardware):
        return super().serving_options(hardware) | {"max_num_seqs": 7}

    def serving_command(self, options, context):
        return [f"third --at-once {options.max_num_seqs}"]


class SamVision(Vision):
    """SAM's map, projected."""

    def encode_view(self, view, pixels, replaced=None):
        tape, config = self.tape, self.config
        features = Sam(tape, config.model.tower("sam"), config.engine_code, config.kernel("sam"), view).record(pixels)
        spec = config.model.tower("projector")
        with tape.module("projector"):
            x = features.view(view.images, features.shape[-1] ** 2, spec.input_width)
            return tape.then_free(ops.linear(x, tape.weight(spec.output_width, spec.input_width)), features)


class SamOnly(DeepSeekOcr, name="sam_only"):
    """DeepSeek-OCR without CLIP."""

    vision = SamVision


def write_configs(folder):
    tiny = yaml.safe_load((config_dir() / "model" / "tiny_test.yaml").read_text())
    del tiny["towers"]["clip"]
    tiny["towers"]["projector"]["input_width"] = tiny["towers"]["sam"]["downsample_widths"][-1]
    device = yaml.safe_load((config_dir() / "hardware" / "l4.yaml").read_text())
    files = {
        "hardware": device | {"name": "two_l4", "label": "two L4", "device_names": ["L4 x 2"], "memory_bytes": 48e9},
        "attention": dict.fromkeys(("name", "sam", "clip", "decoder", "others"), "without_scores"),
        "engine": {"name": "compiled", "label": "a compiler", "prefill_logits": "last", "chooses_logits": False, "others": "sdpa"}
        | {"runnable_attention": []},
        "model": tiny | {"name": "sam_reader", "label": "SAM reader", "pipeline": "sam_only"},
    }
    third = yaml.safe_load((config_dir() / "engine" / "vllm.yaml").read_text()) | {"name": "third", "block_tokens": 32}
    for group, config in (*files.items(), ("engine", third)):
        (folder / group).mkdir(exist_ok=True)
        (folder / group / f"{config['name']}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


CHOICE = ["model=sam_reader", "engine=compiled", "attention=without_scores", "hardware=two_l4"]
GRID = ["workload.columns=2", "workload.rows=3", "workload.global_px=256", "workload.tile_px=128"]


@pytest.fixture
def own_configs(tmp_path, monkeypatch):
    write_configs(tmp_path)
    monkeypatch.setenv("OCR_FLOPS_CONFIGS", str(tmp_path))


@pytest.fixture
def found(own_configs):
    page = of.Workload(256, 128, 2, 3, output_tokens=20)
    return of.estimate(of.load_model("sam_reader"), page, "without_scores", engine="compiled")


def test_they_are_found_by_name(own_configs):
    added = {"model": "sam_reader", "engine": "compiled", "attention": "without_scores", "hardware": "two_l4"}
    assert all(name in names(group) for group, name in added.items())
    assert attention_modes("bf16") == ("eager", "sdpa", "flash", "without_scores") and "without_scores" not in attention_modes("fp32")
    assert catalog.hardware_of_device("NVIDIA L4 x 2").name == "two_l4"


def test_an_estimate_uses_each_of_them(found):
    flash = of.estimate(found.config.model, found.workload, "flash", engine="compiled")
    assert {module for _, module in found.module_numbers} >= {"sam.mlp", "projector", "decoder.attention"}
    assert not any(module.startswith("clip") for _, module in found.module_numbers)
    ours, theirs = (one.module_numbers["prefill", "decoder.attention"] for one in (found, flash))
    assert ours["tensor_flops"] == theirs["tensor_flops"] and ours["vector_flops"] < theirs["vector_flops"]
    other = of.estimate(found.config.model, found.workload, "flash", engine="transformers")
    heads = [one.module_numbers["prefill", "lm_head"]["activation_io_bytes"] for one in (flash, other)]
    assert heads[0] - heads[1] == 1000 * (2 + 1)  # 1 000 logits are read in bf16 and written in a byte
    assert found.config.evidence("vision") == "modelled"
    assert found.on(of.load_hardware("two_l4")).fits


def test_charts_tables_and_reports_show_them(found):
    subject = Subject(found, of.load_hardware("two_l4"))
    assert list(subject.by_mode) == ["eager", "sdpa", "flash", "without_scores"]
    chart = savings(subject.by_mode, subject.timings)
    assert {row["row"].split("|")[1] for row in chart.datasets["bars"]} >= {"without_scores"}
    assert "projector" in modules_table(found.modules)["module"].to_list()
    text = report_markdown(subject)
    assert all(label in text for label in ("SAM reader", "a compiler", "without_scores", "two L4"))


def test_the_command_line_takes_them(own_configs, capsys):
    assert main(["estimate", *CHOICE, *GRID, "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [printed[key] for key in ("model", "engine", "attention", "hardware")] == [one.split("=")[1] for one in CHOICE]


def test_an_engine_that_serves_is_chosen_everywhere(own_configs, capsys):
    assert main(["serving", "engine=third", "hardware=l4", "workload.output_tokens=400", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["engine"], found["max_concurrency"], found["command"]) == ("third", 7, "third --at-once 7")
    page = of.Workload.from_grid(2, 3, output_tokens=400)
    served = [of.serving("deepseek_ocr", page, "l4", engine=one, concurrency=7).tpot_seconds.value for one in ("third", "vllm")]
    assert served[0] != served[1]
    assert prepare("deepseek_ocr", page, "l4", engine="third").options.block_size == 32
    assert "third" in serving_controls()["engine"].options


def test_a_config_without_its_class_is_an_error(own_configs, tmp_path):
    config = yaml.safe_load((tmp_path / "engine" / "compiled.yaml").read_text())
    (tmp_path / "engine" / "nothing.yaml").write_text(yaml.safe_dump(config | {"name": "nothing"}))
    with pytest.raises(
        of.SpecError,
        match="^engine: 'nothing' is not one of compiled, .*remote_code, sglang, third, transformers, vllm, which have a class",
    ):
        of.estimate(of.load_model("tiny_test"), of.Workload(256), engine="nothing")
