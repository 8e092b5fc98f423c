"""A model of one's own: a folder with the config.json of a class that a shipped model is of, such as a fine-tune at other dimensions."""

from pathlib import Path
from typing import Any

import yaml

from ocr_flops.errors import SpecError
from ocr_flops.files import user_cache_dir, write_whole

FILE = "config.json"
NO_DIMENSIONS = ("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "_name_or_path", "quantization_config")


def is_own_model(name: Any) -> bool:
    """Whether a choice of a model is a folder with a config.json."""
    return isinstance(name, str) and ("/" in name or name.startswith(".")) and (Path(name) / FILE).is_file()


def own_model_file(folder: Path, shipped: dict[str, dict[str, Any]]) -> Path:
    """The config of the group `model` for such a folder, as a file in the user's cache.

    Args:
        folder: of the model.
        shipped: the configs of learned models, by name; a page is taken as by the one of the same class.

    Raises:
        SpecError: the file is damaged, or of a class that no shipped model is of.
    """
    import json

    path = folder / FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        (architecture,) = config["architectures"]
    except (ValueError, KeyError, TypeError):
        raise SpecError(f"model: {path} is no config of a model, which names one class under architectures") from None
    relative = next((name for name, one in shipped.items() if one["architecture"] == architecture), None)
    if relative is None:
        known = ", ".join(sorted({one["architecture"] for one in shipped.values()}))
        raise SpecError(f"model: {path} is of {architecture}; what a page is to a model is known here for {known}")
    name = folder.resolve().name
    own = {
        "name": name,
        "label": name,
        "pipeline": "learned",
        "architecture": architecture,
        "page_rule": shipped[relative]["page_rule"],
        "config": {key: value for key, value in config.items() if key not in NO_DIMENSIONS},
        "source": f"{path.resolve()}; pages as those of {relative}",
    }
    text = yaml.safe_dump(own, sort_keys=False, allow_unicode=True)
    import hashlib  # not with every name of a model

    kept = user_cache_dir() / "models" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, text)
    return kept
