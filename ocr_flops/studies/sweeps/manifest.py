"""The record of a finished sweep: what was asked, by which versions, when, and every file with its size and sha256."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ocr_flops import __version__
from ocr_flops.errors import SpecError

if TYPE_CHECKING:
    from ocr_flops.studies.sweeps.plan import Sweep

NAME = "manifest.json"
SCHEMA = 1
PACKAGES = ("numpy", "polars", "hydra-core", "torch", "transformers")


class File(NamedTuple):
    """A file's size and digest."""

    bytes: int
    sha256: str


def identity(sweep: Sweep, part_points: int) -> dict[str, Any]:
    """What the rows of a sweep depend on: two runs of the same identity compute the same parts."""
    pages = hashlib.sha256()
    if sweep.pages is not None:
        for name, column in sweep.pages.fields.items():
            pages.update(name.encode() + column.tobytes())
        pages.update(json.dumps([sweep.pages.images, sweep.pages.skipped]).encode())
    whole = {"ocr_flops": __version__, "part_points": part_points, "pages_sha256": pages.hexdigest(), "config": sweep.config}
    return json.loads(json.dumps(whole))


def differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The keys in which two identities differ, with both values; "" where they are equal."""
    old, new = _flat(there), _flat(here)
    words = [f"{key} {old.get(key, 'unset')} there, {new.get(key, 'unset')} here" for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(words[:3]) + (f"; and {len(words) - 3} more" if len(words) > 3 else "")


def _flat(tree: Any, above: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {above: tree}
    prefix = f"{above}." if above and above != "config" else ""  # the keys as they are on the command line
    return {path: value for key, inner in tree.items() for path, value in _flat(inner, f"{prefix}{key}").items()}


def versions() -> dict[str, str]:
    """Of this package, what computes and writes, and the platform."""
    found = {"ocr_flops": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def files(folder: Path, known: Mapping[Path, File], but: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every file of a folder, by path, without those below the names given; one whose digest is known is not read again."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] not in but)
    return [{"path": str(path.relative_to(folder)), **(known.get(path) or digest(path))._asdict()} for path in paths]


def digest(path: Path) -> File:
    """A file's size and sha256."""
    with path.open("rb") as file:
        return File(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a finished sweep.

    Raises:
        SpecError: the folder has none, or one that cannot be read.
    """
    path = Path(folder) / NAME
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SpecError(f"{path}: no manifest that can be read; this is not the folder of a finished sweep") from None
