"""The published code from a local folder: its classes are imported, and the model is built from its config.

The folder is read only: nothing is written into it (no bytecode either), nothing is downloaded, and no copy of it is kept. The code is
imported as a package of its own, not through transformers' AutoModel, which copies it into a cache in the home folder, and which differs
from version to version.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from ocr_flops.measure.protocol import Request
from ocr_flops.measure.worker import checkpoint as checkpoints
from ocr_flops.measure.worker.machine import DTYPES, FLASH

PACKAGE = "ocr_flops_snapshot"
PREPROCESSING = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
DECODER_FIELDS = {  # of config.json: dimensions of the decoder
    "hidden_size": "width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "first_k_dense_replace": "dense_layers",
    "intermediate_size": "dense_width",
    "n_routed_experts": "experts",
    "num_experts_per_tok": "experts_per_token",
    "moe_intermediate_size": "expert_width",
    "n_shared_experts": "shared_experts",
    "vocab_size": "vocabulary",
}


def build_model(request: Request, device: str) -> torch.nn.Module:
    """Builds the published model, with random weights where there is no checkpoint. For kind "host" its decoder is built with the
    dimensions given, whatever its config says; the towers' stand in the code, so they keep theirs.

    Args:
        request: snapshot (config.json and the modules beside it), towers, of which the config's must be the same, the decoder's attention,
            dtype, checkpoint and kind.
        device: "meta", "cpu" or "cuda".

    Raises:
        ValueError: no such snapshot, or it is of another model.
        ImportError: its code cannot be imported; the message names what is missing.
    """
    folder, decoder, resized = request.snapshot, request.towers["decoder"], request.kind == "host"
    settings = _settings(folder)
    for name, dimension in DECODER_FIELDS.items():
        if not resized and name in settings and settings[name] != decoder[dimension]:
            raise ValueError(
                f"snapshot: its config.json has {name} = {settings[name]}, the model asked for decoder.{dimension} = "
                f"{decoder[dimension]}; choose the model that the snapshot is of"
            )
    model_class = _model_class(folder, settings)
    config = model_class.config_class.from_pretrained(folder)
    config._attn_implementation = FLASH if request.attention["decoder"] == "flash" else "eager"
    for name, dimension in (*DECODER_FIELDS.items(), ("num_key_value_heads", "heads")) if resized else ():
        setattr(config, name, decoder[dimension])
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[request.dtype])  # as from_pretrained does: constants that the code makes in fp32 stay fp32
    try:
        with torch.device(device):
            model = model_class(config)
    finally:
        torch.set_default_dtype(before)
    if request.checkpoint is not None:
        checkpoints.load(model, request.checkpoint, device)
    return model.eval()


def _settings(folder: str) -> dict[str, Any]:
    """The snapshot's config.json.

    Raises:
        ValueError: no such folder, or its config.json names no model class.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"snapshot: {folder!r} holds no config.json; name the folder that the published model was downloaded into")
    settings = json.loads(path.read_text(encoding="utf-8"))
    if "AutoModel" not in settings.get("auto_map", {}):
        raise ValueError(f"snapshot: config.json in {folder!r} has no auto_map.AutoModel, so it names no model class")
    return settings


def _model_class(folder: str, settings: dict[str, Any]) -> type:
    """The class that auto_map names, as in "modeling_deepseekocr.DeepseekOCRForCausalLM"."""
    module, _, name = settings["auto_map"]["AutoModel"].rpartition("--")[2].rpartition(".")
    path = Path(folder) / f"{module}.py"
    if not path.is_file():
        raise ValueError(f"snapshot: config.json names {path.name}, which {folder!r} does not hold")
    for known in [known for known in sys.modules if known.partition(".")[0] == PACKAGE]:
        del sys.modules[known]  # of another snapshot
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(Path(folder).resolve())]
    sys.modules[PACKAGE] = package
    import transformers

    try:
        with patch.object(sys, "dont_write_bytecode", True), _preprocessing():  # nothing is left in the snapshot
            return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    except ModuleNotFoundError as problem:
        raise ImportError(f"snapshot: its code needs {problem.name}, which is not installed where the worker runs") from problem
    except ImportError as problem:
        raise ImportError(f"snapshot: its code does not run with transformers {transformers.__version__} ({problem})") from problem


class _StandIn(types.ModuleType):
    """A module of which anything can be imported, and nothing used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}", type(name, (), {}))


@contextlib.contextmanager
def _preprocessing() -> Iterator[None]:
    """Lets the code import torchvision where it is missing: it prepares images with it, which the worker does itself."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    for name in PREPROCESSING:
        sys.modules[name] = module = _StandIn(name)
        module.__path__, module.__spec__ = [], importlib.machinery.ModuleSpec(name, None, is_package=True)
    try:
        yield
    finally:
        for name in PREPROCESSING:
            del sys.modules[name]
