"""Local weights: safetensors only, because .bin and .pt files can run code when they are read."""

import json
from pathlib import Path

import torch

INDEX = "model.safetensors.index.json"
UNSAFE = (".bin", ".pt", ".pth", ".ckpt")


def files(checkpoint: str) -> list[Path]:
    """The safetensors files of a checkpoint: those that its index names (all of which must be there), or else all of the folder; ValueError
    without any."""
    folder = Path(checkpoint)
    if folder.suffix in UNSAFE:
        raise ValueError(f"checkpoint: {checkpoint!r} is a {folder.suffix} file, which can run code when it is read; safetensors only")
    if not folder.is_dir():
        raise ValueError(f"checkpoint: {checkpoint!r} is not a folder; name the folder that holds the .safetensors files")
    index = folder / INDEX
    names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())) if index.exists() else []
    found = [folder / name for name in names] or sorted(folder.glob("*.safetensors"))
    if not found:
        others = sorted({path.suffix for path in folder.iterdir()} & set(UNSAFE))
        held = f", only {' and '.join(others)} files, which can run code when they are read" if others else ""
        raise ValueError(f"checkpoint: {checkpoint!r} holds no .safetensors file{held}; safetensors only")
    for path in found:
        if path.suffix != ".safetensors" or not path.is_file():
            raise ValueError(f"checkpoint: {INDEX} names {path.name!r}, which is not a .safetensors file there")
    return found


def load(model: torch.nn.Module, checkpoint: str, device: str) -> None:
    """Loads a checkpoint whose tensors carry the model's own names, file by file.

    Raises:
        ValueError: as `files`; or a parameter is missing in it, left over, or of another shape.
    """
    from safetensors.torch import load_file

    wanted, unknown = {name for name, _ in model.named_parameters()}, set()  # buffers are constants, which the code makes itself
    for path in files(checkpoint):
        held = load_file(path, device=device)
        unknown |= set(model.load_state_dict(held, strict=False).unexpected_keys)
        wanted -= set(held)
    complain(checkpoint, wanted, unknown)


def complain(checkpoint: str, missing: set[str], unknown: set[str] = frozenset()) -> None:
    """Raises ValueError for the first of what is missing, or unknown: a model with parameters that no file gave would run on random ones,
    and nobody would see it."""
    for names, what in ((missing, "lacks"), (unknown, "has, and the model has not,")):
        if names:
            raise ValueError(f"checkpoint: {checkpoint!r} {what} {len(names)} tensors, as {min(names)!r}: is it of this model and engine?")
