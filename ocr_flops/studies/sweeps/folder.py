"""The folder of a sweep: built in a work folder, moved to its place when it is whole, described by its manifest.

The work folder is `.NAME.partial` beside the place, or `NAME/.partial` in a folder that exists already (it may be a mount point). In it are
`run.json` (what the sweep depends on), `parts/` and `real_model/` (what is finished), and `files/` (what will be published, its manifest
written last). The process may die at any moment: the same command goes on from there.
"""

import contextlib
import hashlib
import json
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ocr_flops import __version__
from ocr_flops.errors import SpecError
from ocr_flops.files import try_lock, write_whole
from ocr_flops.studies.sweeps.plan import Sweep

MANIFEST, PARTIAL = "manifest.json", ".partial"
SCHEMA = 1
COLUMNS = 2  # counts up when the tables get columns: older parts have not all of them
PACKAGES = ("numpy", "polars", "hydra-core", "torch", "transformers")
MOST = 3  # differences or files that an error names
Tree = dict[str, Any]


class WorkFolder:
    """Where a sweep is built, beside or in the place `out` of the finished folder, an absolute path without links."""

    def __init__(self, out: Path) -> None:
        beside = out.parent / f".{out.name}{PARTIAL}"
        self.out, self.path = out, out / PARTIAL if out.exists() and not beside.exists() else beside
        self.parts, self.real_model, self.files = (self.path / name for name in ("parts", "real_model", "files"))

    @property
    def is_whole(self) -> bool:
        """Whether everything is written and only has to be published."""
        return (self.files / MANIFEST).exists()

    @property
    def has_results(self) -> bool:
        """Whether anything was computed."""
        return any(path.is_file() for folder in (self.parts, self.real_model) for path in folder.glob("*"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and holds it for this process (a SpecError where another one does); a folder without results goes when something
        is wrong."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.path / "lock")
        if lock is None:
            raise SpecError(f"--out: another sweep is writing {self.path}; wait for it, or choose another folder")
        with lock:
            try:
                yield
            except SpecError:
                if not self.has_results:
                    self.discard()
                raise

    def begin(self, identity: Tree, overwrite: bool) -> str:
        """Begins a sweep, or goes on with the one that was interrupted here.

        Args:
            identity: of `sweep_identity`.
            overwrite: whether results of another sweep are discarded.

        Returns:
            when it began.

        Raises:
            SpecError: results of another sweep are here, or notes of another schema.
        """
        place = self.path / "run.json"
        try:
            note = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            note = {"schema": SCHEMA, "identity": {}}
        if not isinstance(note, dict) or note.get("schema") != SCHEMA or not isinstance(note.get("identity"), dict):
            if self.has_results and not overwrite:
                raise SpecError(
                    f"--out: {place} is not of schema {SCHEMA}; go on with the version that wrote it, or discard it with --overwrite"
                )
            note = {"identity": {}}
        if different := list_differences(note["identity"], identity):
            if self.has_results and not overwrite:
                raise SpecError(
                    f"--out: an interrupted sweep is in {self.path} ({different}); run that one again, or discard it with --overwrite"
                )
            for folder in (self.parts, self.real_model):
                shutil.rmtree(folder, ignore_errors=True)
            note = {"schema": SCHEMA, "identity": identity, "started": utc_now()}
            write_whole(place, json.dumps(note))
        shutil.rmtree(self.files, ignore_errors=True)
        for folder in (self.parts, self.real_model, self.files):
            folder.mkdir(exist_ok=True)
        return note["started"]

    def publish(self) -> None:
        """Moves the files to their place: as one folder where there is none, else one by one, the manifest last.

        Of a folder that is there, the files are removed that its manifest lists and the new one does not.
        """
        if not self.out.exists():
            self.files.rename(self.out)
        else:
            paths = [one["path"] for one in read_manifest(self.files)["files"]]
            old = [one["path"] for one in read_manifest(self.out)["files"]] if (self.out / MANIFEST).exists() else []
            for path in map(self.out.joinpath, set(old) - set(paths)):
                if path.resolve().is_relative_to(self.out):
                    path.unlink(missing_ok=True)
                    with contextlib.suppress(OSError):  # its folder holds something else, or is gone already
                        path.parent.rmdir()
            (self.out / MANIFEST).unlink(missing_ok=True)
            for path in (*paths, MANIFEST):
                if (self.files / path).exists():
                    (self.out / path).parent.mkdir(exist_ok=True)
                    (self.files / path).replace(self.out / path)
        self.discard()

    def discard(self) -> None:
        """Removes the work folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def find_finished(out: Path, identity: Tree, overwrite: bool) -> Tree | None:
    """The manifest of the same sweep where a folder holds it, finished; None where there is something to do.

    Raises:
        SpecError: the folder holds what is no sweep; or, without `overwrite`, another sweep, or one whose files are missing or changed.
    """
    if not out.exists() or (out.is_dir() and all(path.name == PARTIAL for path in out.iterdir())):
        return None
    try:
        found = read_manifest(out)
        different = list_differences(found["identity"], identity)
    except (SpecError, KeyError, TypeError):
        raise SpecError(f"--out: {out} holds something else than a sweep; choose a new folder") from None
    if overwrite:
        return None
    if found.get("schema") != SCHEMA:
        raise SpecError(f"--out: {out / MANIFEST} is not of schema {SCHEMA}; choose another folder, or --overwrite to replace it")
    if different:
        raise SpecError(f"--out: {out} holds a finished sweep ({different}); choose another folder, or --overwrite to replace it")
    changed = [one["path"] for one in found["files"] if describe_file(out, one["path"]) != one]
    if changed:
        raise SpecError(f"--out: {out} holds this sweep, but missing or changed: {_first(changed, ', ')}; --overwrite computes it again")
    return found


def sweep_identity(sweep: Sweep, part_points: int) -> Tree:
    """What the rows of a sweep depend on: two sweeps of the same identity compute the same parts."""
    pages = hashlib.sha256()
    if sweep.pages is not None:
        for name, column in sweep.pages.fields.items():
            pages.update(name.encode() + column.tobytes())
        pages.update(json.dumps([sweep.pages.images, sweep.pages.skipped]).encode())
    versions = {"ocr_flops": __version__, "columns": COLUMNS, "part_points": part_points}
    whole = {**versions, "pages_sha256": pages.hexdigest(), "config": sweep.config}
    return json.loads(json.dumps(whole))


def list_differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The keys in which two identities differ, with both values; "" where they are equal."""
    old, new = _flatten(there), _flatten(here)
    words = [f"{key} {old.get(key, 'unset')} there, {new.get(key, 'unset')} here" for key in {**old, **new} if old.get(key) != new.get(key)]
    return _first(words, "; ")


def _flatten(tree: Any, above: str = "") -> Tree:
    if not isinstance(tree, dict):
        return {above: tree}
    prefix = f"{above}." if above and above != "config" else ""  # the keys as they are on the command line
    return {path: value for key, inner in tree.items() for path, value in _flatten(inner, f"{prefix}{key}").items()}


def _first(words: Sequence[str], separator: str) -> str:
    more = [f"and {len(words) - MOST} more"] if len(words) > MOST else []
    return separator.join([*words[:MOST], *more])


def write_manifest(folder: Path, record: Tree, published: Iterable[Tree] = ()) -> Tree:
    """Writes and returns a folder's manifest: a record of the sweep, versions, and size and sha256 of every file.

    Args:
        folder: of the files.
        record: of the sweep.
        published: entries of files that are in their place already.
    """
    here = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    files = {one["path"]: one for one in (*published, *(describe_file(folder, path) for path in here))}
    manifest = {"schema": SCHEMA, **record, "versions": list_versions(), "files": [files[path] for path in sorted(files)]}
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return manifest


def describe_file(folder: Path, path: str) -> Tree | None:
    """The path, size and sha256 of a file in a folder; None where there is none."""
    if not (folder / path).is_file():
        return None
    with (folder / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": path, "bytes": (folder / path).stat().st_size, "sha256": digest}


def read_manifest(folder: str | Path) -> Tree:
    """The manifest of a finished sweep; a SpecError where the folder has none that can be read."""
    path = Path(folder) / MANIFEST
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SpecError(f"{path}: no manifest that can be read; this is not the folder of a finished sweep") from None


def list_versions() -> dict[str, str]:
    """Versions of this package, of what computes and writes, and of the platform."""
    own = {"ocr_flops": __version__, "python": platform.python_version(), "platform": platform.platform()}
    return own | {package: version(package) for package in PACKAGES}


def utc_now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
