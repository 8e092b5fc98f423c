"""A small snapshot with the structure of the published code, of the tests' own writing."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import ocr_flops as of
from ocr_flops.measure.worker import remote_snapshot

CODE = Path(__file__).parent / "snapshot"


VENDOR = of.AttentionSpec("vendor", {"sam": "sdpa", "clip": "sdpa", "decoder": "eager"})


def towers(model):
    return {spec.tower: asdict(spec) for spec in model.towers}


def make(model, folder):
    """Writes a snapshot of a model into a folder."""
    shutil.copytree(CODE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    sizes = towers(model)
    settings = {name: sizes["decoder"][dimension] for name, dimension in remote_snapshot.DECODER_FIELDS.items()}
    names = {"AutoConfig": "modeling_deepseekocr.DeepseekOCRConfig", "AutoModel": "modeling_deepseekocr.DeepseekOCRForCausalLM"}
    (folder / "config.json").write_text(json.dumps({"auto_map": names, "model_type": "deepseek_vl_v2", "towers": sizes} | settings))
    return str(folder)
