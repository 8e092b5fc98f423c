"""The vendor's own code: a small snapshot of the tests' own writing is run, counted and traced as the published one would be."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import ocr_flops as of
from ocr_flops.cli import main
from ocr_flops.errors import SpecError
from ocr_flops.evidence import verify
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.protocol import Request
from ocr_flops.measure.worker import checkpoint, remote_snapshot
from ocr_flops.measure.worker.inputs import Point, views
from ocr_flops.measure.worker.labels import RemoteLabels
from ocr_flops.measure.worker.remote_engine import Remote
from ocr_flops.measure.worker.remote_shims import assumed_counts
from tests.support.remote_snapshot import VENDOR, make, towers

POINTS = [
    of.Workload(256, 128, 3, 2, prompt_tokens=5, output_tokens=2),
    of.Workload(128, prompt_tokens=4, output_tokens=1),
    of.Workload(192, 64, 2, 1, prompt_tokens=3, output_tokens=2, batch_size=2),
]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    return make(tiny, tmp_path_factory.mktemp("published") / "DeepSeek-OCR")


@pytest.fixture
def asked(tiny, folder):
    """A request for the snapshot."""

    def asking(workloads, **options):
        rest = {"engine": "remote_code", "snapshot": folder, "trust_remote_code": True, "attention": VENDOR, "prefill_logits": "all"}
        return build_request(tiny, workloads, **rest | {"device": "meta"} | options)

    return asking


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_counted_flops_parameters_and_cache_are_the_analytic_ones(tiny, serve, asked, device):
    for result in serve(asked(POINTS, device=device)):
        found = verify.compare_numbers(tiny, result)
        assert (found["difference"] == 0).all()
        assert set(found["level"]) == set(verify.LEVELS)
        assert result.ran["engine"] == "remote_code" and result.ran["experts"] == "loop"


def test_the_worker_runs_it_as_a_process_of_its_own(folder, capsys, monkeypatch):
    monkeypatch.setenv("OCR_FLOPS_PYTHON", sys.executable)
    before = sorted(path.name for path in Path(folder).iterdir())
    arguments = [
        "engine=remote_code",
        "model=tiny_test",
        f"snapshot={folder}",
        "trust_remote_code=True",
        "workload.columns=2",
        "workload.rows=1",
    ]
    assert main(["verify", *arguments, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["differences"] == 0 and told["versions"]["label"].startswith("transformers, the published code, random weights")
    assert sorted(path.name for path in Path(folder).iterdir()) == before  # no bytecode beside the code


@pytest.mark.parametrize("batch", [1, pytest.param(2, marks=pytest.mark.verification)])
def test_the_stages_together_are_one_forward_of_the_published_code(asked, batch):
    """Vision that ends early and prefill that begins late give the logits, and count the FLOPs, of one undivided call."""
    point = Point(128, 64, 2, 1, 3, 0, batch)
    engine = Remote(request := asked([], dtype="fp32"), "cpu")
    built = engine.model
    torch.manual_seed(1)
    page = views(point, request, "cpu")
    images = [(page["pixel_values_local"][2 * i : 2 * i + 2], page["pixel_values"][i : i + 1]) for i in range(batch)]
    ids = torch.tensor([[999] * point.image_tokens + [2, 3, 4]] * batch)
    with torch.no_grad(), engine.running(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as whole:
        wanted = built(
            input_ids=ids,
            images=images,
            images_seq_mask=ids == 999,
            images_spatial_crop=[[2, 1]] * batch,
            attention_mask=torch.ones_like(ids),
            position_ids=torch.arange(ids.shape[1]).expand(ids.shape),
        ).logits
    torch.manual_seed(1)
    seen = []
    handle = built.lm_head.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad(), engine.running(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as parts:
        _, encode = engine.vision(point)
        features = encode()
        cache = engine.new_cache()
        _, fill = engine.prefill(point, features, cache)
        fill()
    handle.remove()
    assert parts.get_total_flops() == whole.get_total_flops() > 0
    torch.testing.assert_close(seen[0], wanted, rtol=0, atol=0)
    assert wanted.abs().sum() > 0 and not torch.equal(wanted[:, 0], wanted[:, 1])


def test_decode_goes_on_where_prefill_ended(asked):
    point = Point(64, 0, 1, 1, 3, 2, 1)
    engine = Remote(asked([], dtype="fp32"), "cpu")
    with torch.no_grad(), engine.running():
        cache = engine.new_cache()
        engine.prefill(point, [torch.randn(point.image_tokens, 96)], cache)[1]()
        held, step = engine.step(point, 0, cache)
        step()
    tokens = point.image_tokens + 3
    assert [tensor.tolist() for tensor in held] == [[[2]], [[1] * (tokens + 1)], [[tokens]]]
    assert [keys.shape[2] for keys, _ in engine.cached(cache)] == [tokens + 1] * 3


def test_views_of_zeros_are_never_sent(asked):
    for channels in views(Point(64, 64, 2, 1, 3, 0, 1), asked([]), "cpu").values():
        if isinstance(channels, torch.Tensor):
            assert channels.sum().item() != 0


@pytest.mark.parametrize(
    ("experts", "per_token", "tokens", "hit"), [(64, 6, 1, 6), (64, 6, 2, 11), (64, 6, 493, 64), (8, 3, 1, 3), (4, 4, 5, 4)]
)
def test_the_experts_assumed_without_data(experts, per_token, tokens, hit):
    counts = assumed_counts(experts, tokens * per_token, per_token)
    assert (len(counts), sum(counts), sum(count > 0 for count in counts)) == (experts, tokens * per_token, hit)
    assert max(counts) <= tokens


def test_labels_of_the_published_paths(model):
    place = RemoteLabels(towers(model)).place
    for path, name, order, label in (
        ("model.sam_model.patch_embed.proj", "convolution", 0, "sam.patch"),
        ("model.sam_model", "add", 0, "sam.patch"),
        ("model.sam_model", "clone", 0, "sam.neck"),
        ("model.sam_model.net_3", "convolution", 0, "sam.neck"),
        ("model.sam_model.blocks.2.attn.qkv", "addmm", 0, "sam.attention_global/2"),
        ("model.sam_model.blocks.3", "constant_pad_nd", 0, "sam.attention_windowed/3"),
        ("model.sam_model.blocks.3", "add", 0, "sam.mlp/3"),
        ("model.sam_model.blocks.4", "add", 1, "sam.attention_global/5"),
        ("model.sam_model.blocks.11", "add", 3, "sam.neck"),
        ("model.sam_model.blocks.10.norm2", "native_layer_norm", 0, "sam.mlp/10"),
        ("model.vision_model.pre_layrnorm", "native_layer_norm", 0, "clip.embed"),
        ("model.vision_model.transformer.layers.7", "sigmoid", 0, "clip.mlp/7"),
        ("model.vision_model.transformer.layers.7", "_scaled_dot_product_flash_attention", 0, "clip.attention/7"),
        ("model.vision_model.transformer.layers.23", "add", 1, "projector"),
        ("model.vision_model.transformer.layers.7.layer_norm2", "native_layer_norm", 0, "clip.mlp/7"),
        ("model", "cat", 0, "projector"),
        ("model", "cat", 1, "merge"),
        ("model", "masked_scatter_", 0, "merge"),
        ("model", "masked_fill", 0, "decoder.attention"),
        ("model.layers.0.mlp", "mul", 0, "decoder.dense_mlp/0"),
        ("model.layers.5.mlp", "index", 0, "decoder.routed_experts/5"),
        ("model.layers.5.mlp", "add", 0, "decoder.shared_experts/5"),
        ("model.layers.5.mlp.experts.63.up_proj", "mm", 0, "decoder.routed_experts/5"),
        ("model.layers.5.mlp.gate", "mm", 0, "decoder.router/5"),
        ("model.layers.5.self_attn.rotary_emb", "bmm", 0, "decoder.attention/5"),
        ("model.layers.11", "add", 1, "decoder.norm_residual/11"),
        ("model.norm", "mul", 0, "decoder.norm_residual"),
        ("", "_to_copy", 0, "lm_head"),
    ):
        assert place(path, name, order) == label, path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trust_remote_code": False}, "^trust_remote_code: it is not true, so nothing was run"),
        ({"snapshot": None}, "^snapshot: engine remote_code runs the published code from a local folder"),
        ({"engine": "transformers", "attention": "eager"}, "^snapshot: only engine remote_code runs one"),
        ({"attention": "eager"}, "^attention.sam: 'eager' cannot be run by the published code; choose sdpa$"),
        ({"prefill_logits": "last"}, "^prefill_logits: 'last' cannot be run by the published code; choose all$"),
        ({"checkpoint": "/weights"}, "^checkpoint: the meta device holds no weights"),
    ],
)
def test_what_is_refused_before_anything_runs(asked, options, message):
    with pytest.raises(SpecError, match=message):
        asked(POINTS, **options)
    valid = json.loads(asked(POINTS).to_json())
    sent = json.dumps(
        valid | options | ({"attention": dict.fromkeys(("sam", "clip", "decoder"), "eager")} if "attention" in options else {})
    )
    with pytest.raises(ValueError, match=message):
        Request.from_json(sent)


def edited(folder, tmp_path, name, text):
    """A copy of the snapshot, one of its files replaced."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / name).write_text(text)
    return str(copy)


def build_published(model, folder, device="meta", **settings):
    return remote_snapshot.build_model(Request(towers(model), [], snapshot=folder, **settings), device)


def test_what_the_code_lacks_is_named(tiny, folder, tmp_path):
    with pytest.raises(ImportError, match=r"^snapshot: its code needs no_such_package, which is not installed where the worker runs$"):
        build_published(tiny, edited(folder, tmp_path, "deepencoder.py", "import no_such_package"))
    gone = edited(
        folder, tmp_path / "old", "modeling_deepseekv2.py", "from transformers.models.llama.modeling_llama import LlamaFlashAttention2"
    )
    with pytest.raises(ImportError, match=r"^snapshot: its code does not run with transformers 5\..*LlamaFlashAttention2"):
        build_published(tiny, gone)
    assert not [name for name in sys.modules if name.startswith("torchvision")]  # the stand-in is gone


def test_a_folder_that_is_no_snapshot_of_the_model(tiny, model, folder, tmp_path):
    with pytest.raises(ValueError, match=r"^snapshot: .* holds no config.json"):
        build_published(tiny, str(tmp_path))
    with pytest.raises(ValueError, match=r"^snapshot: its config.json has hidden_size = 96, the model asked for decoder.width = 1280"):
        build_published(model, folder)
    with pytest.raises(ValueError, match=r"has no auto_map.AutoModel"):
        build_published(tiny, edited(folder, tmp_path, "config.json", "{}"))


def save(state, path):
    from safetensors.torch import save_file

    path.mkdir(parents=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path / "model.safetensors")
    return str(path)


def test_local_weights_are_those_of_the_checkpoint(tiny, folder, tmp_path):
    built = build_published(tiny, folder, dtype="fp32", device="cpu")
    state = built.state_dict()
    again = build_published(tiny, folder, dtype="fp32", device="cpu", checkpoint=save(state, tmp_path / "whole"))
    assert all(torch.equal(state[name], tensor) for name, tensor in again.state_dict().items())
    state.pop("lm_head.weight")
    with pytest.raises(ValueError, match=r"^checkpoint: .* lacks 1 tensors, as 'lm_head.weight': is it of this model and engine\?$"):
        build_published(tiny, folder, dtype="fp32", device="cpu", checkpoint=save(state, tmp_path / "less"))


def test_local_weights_for_transformers(tiny, tmp_path):
    from ocr_flops.measure.worker.transformers_engine import build_model

    request = Request(towers(tiny), [], dtype="fp32")
    built = build_model(request, "cpu", "eager")
    built.save_pretrained(tmp_path / "whole")
    again = build_model(replace(request, checkpoint=str(tmp_path / "whole")), "cpu", "eager")
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in built.state_dict().items())
    from safetensors.torch import load_file

    held = load_file(tmp_path / "whole" / "model.safetensors")
    held.pop(next(name for name in held if name.endswith("norm.weight")))
    with pytest.raises(ValueError, match=r"^checkpoint: .* lacks 1 tensors"):
        build_model(replace(request, checkpoint=save(held, tmp_path / "less")), "cpu", "eager")


def test_files_that_can_run_code_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds no .safetensors file, only .bin files, which can run code"):
        checkpoint.files(str(tmp_path))
    with pytest.raises(ValueError, match=r"is a .pt file, which can run code"):
        checkpoint.files(str(tmp_path / "model.pt"))
    with pytest.raises(ValueError, match="is not a folder"):
        checkpoint.files(str(tmp_path / "nowhere"))
    (tmp_path / checkpoint.INDEX).write_text(json.dumps({"weight_map": {"a": "pytorch_model.bin"}}))
    with pytest.raises(ValueError, match=r"names 'pytorch_model.bin', which is not a .safetensors file"):
        checkpoint.files(str(tmp_path))
