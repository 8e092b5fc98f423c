"""Records when something goes wrong: whole or not there, never changed, never deleted, and read whatever else lies in the folder."""

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import ocr_flops as of
from ocr_flops import files
from ocr_flops.evidence import records
from ocr_flops.evidence.records import record, recorder, store
from ocr_flops.evidence.records.cache import RecordCache
from ocr_flops.measure import client
from tests.support.timed import POINT, TILED, AtOnce, plan

NOTHING = Path("/nonexistent")


@pytest.fixture
def made(monkeypatch):
    """Two records of different points."""
    monkeypatch.setattr(client, "Worker", AtOnce)
    return list(recorder.measure_points(plan(), [POINT, TILED]))


def frame(where, **rest):
    return records.records_frame(where, shipped=NOTHING, **rest)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda text: text[: len(text) // 2], "damaged: not JSON"),
        (lambda text: "", "damaged: not JSON"),
        (lambda text: "\udcff", "damaged: not JSON"),
        (lambda text: "[1]", "damaged: no record"),
        (lambda text: "[" * 100_000, "damaged: "),
        (lambda text: '{"schema": "one"}', "damaged: no record"),
        (lambda text: '{"schema": 99}', "schema 99 is newer than this version reads (up to 1); update ocr-flops"),
        (lambda text: text.replace('"host"', '"hosts"', 1), "`host`"),
        (lambda text: text.replace('"state":"done"', '"state":"maybe"', 1), "'maybe' - at `$.state`"),
        (lambda text: text.replace('"prompt_tokens":10', '"prompt_tokens":"x"'), "`$.workload.prompt_tokens`"),
        (lambda text: text.replace('"prompt_tokens":10', f'"prompt_tokens":{10**30}'), "`$.workload.prompt_tokens`"),
        (lambda text: text.replace('"prompt_tokens":10', '"prompt_tokens":-10'), "`$.workload.prompt_tokens`"),
        (lambda text: text.replace('"batch_size":1', '"batch_size":0'), "`$.workload.batch_size`"),
        (lambda text: text.replace('"mode":null,', ""), "`mode` - at `$.workload`"),
        (lambda text: text.replace('"median_seconds":', '"median_seconds":"slow","was":', 1), ".median_seconds`"),
        (lambda text: text.replace('"median_seconds":0.5', '"median_seconds":-1.5', 1), ".median_seconds`"),
        (lambda text: text.replace('"median_seconds":0.5', '"median_seconds":NaN', 1), "damaged: "),
        (lambda text: text.replace('"runs":3,"median', '"runs":3.5,"median'), ".runs`"),
        (lambda text: text.replace('"runs":3,"median', '"runs":true,"median'), ".runs`"),
        (lambda text: text.replace('"derived":{"vision":', '"derived":{"vision":3,"was":', 1), "`$.derived"),
        (lambda text: text.replace('"derived":{"vision":', '"derived":{"training":', 1), "'training' - at `key` in `$.derived`"),
        (lambda text: re.sub(r'"attention":{[^}]*}', '"attention":{}', text), "`$.asked.attention`"),
    ],
)
def test_a_damaged_file_is_reported_in_a_line_and_stays(made, tmp_path, content, reason):
    good = records.write_record(made[1], tmp_path)
    text = good.read_text()
    bad = tmp_path / "00000000T000000-bad.json"
    changed = content(records.write_record(made[0], tmp_path / "other").read_text())
    bad.write_bytes(changed.encode("utf-8", "surrogateescape"))
    stages, problems = frame(tmp_path)
    assert stages["record_id"].unique().to_list() == [made[1]["record_id"]]
    assert [problem.path for problem in problems] == [bad] and reason in problems[0].reason and "\n" not in problems[0].reason
    assert good.read_text() == text and bad.exists()


def test_what_is_being_written_is_not_read(made, tmp_path):
    (tmp_path / "20260101-x.json.123.part").write_text("{")
    (tmp_path / ".hidden.json").write_text("{")
    assert frame(tmp_path)[1] == []


def test_a_record_is_never_changed(made, tmp_path):
    path = records.write_record(made[0], tmp_path)
    with pytest.raises(of.SpecError, match="is there already; records are never changed"):
        records.write_record(made[0] | {"host": "other"}, tmp_path)
    assert json.loads(path.read_text())["host"] == made[0]["host"] and list(tmp_path.iterdir()) == [path]


def full_disk(only):
    """fsync as on a full disk, for files below a folder."""
    sync = os.fsync

    def synced(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(only)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    return synced


def test_a_full_disk_loses_nothing(made, tmp_path, monkeypatch):
    older = records.write_record(made[1], tmp_path / "records")
    text = older.read_text()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(files.os, "fsync", full_disk(tmp_path / "records"))
    with pytest.raises(records.Unwritten, match="No space left on device; free some space.* The record is in .*move it into") as problem:
        records.write_record(made[0], tmp_path / "records")
    assert json.loads(problem.value.rescued.read_text())["record_id"] == made[0]["record_id"]
    assert [path.read_text() for path in (tmp_path / "records").iterdir()] == [text]


def test_no_room_anywhere(made, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(files.os, "fsync", full_disk(tmp_path))
    with pytest.raises(records.Unwritten, match="take it from what is printed") as problem:
        records.write_record(made[0], tmp_path / "records")
    assert problem.value.record == made[0] and problem.value.rescued is None
    with pytest.raises(of.SpecError, match="^--records: cannot write .*free some space"):
        records.check_folder(tmp_path / "records")  # asked before anything is measured
    assert not list((tmp_path / "records").iterdir())


def test_an_interrupted_write_leaves_nothing(made, tmp_path, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        records.write_record(made[0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_check_leaves_nothing(tmp_path):
    assert records.check_folder(tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_many_writers(made, tmp_path):
    """Processes that know nothing of each other write into one folder, while a third reads."""
    template = tmp_path / "template.txt"
    template.write_text(json.dumps(made[0]))
    code = (
        "import json, sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from ocr_flops.evidence import records; from ocr_flops.evidence.records.record import new_id\n"
        "record = json.loads(Path(sys.argv[1]).read_text())\n"
        "for _ in range(20): records.write_record(record | {'record_id': new_id(datetime.now(UTC))}, Path(sys.argv[2]))\n"
    )
    where = tmp_path / "shared"
    writers = [subprocess.Popen([sys.executable, "-c", code, template, where]) for _ in range(3)]
    while any(writer.poll() is None for writer in writers):
        assert frame(where)[1] == []
    assert [writer.returncode for writer in writers] == [0] * 3
    stages, problems = frame(where)
    assert problems == [] and stages["record_id"].n_unique() == 60 == len(list(where.iterdir()))


def test_a_folder_that_is_a_file_is_named(made, tmp_path):
    (tmp_path / "records").write_text("in the way")
    stages, (problem,) = frame(tmp_path / "records")
    assert stages.is_empty() and problem.path == tmp_path / "records" and "(Not a directory); look at what it is" in problem.reason
    with pytest.raises(of.SpecError, match="^--records: .*/records' is not a folder; name one, or move that file away"):
        records.check_folder(tmp_path / "records")
    assert (tmp_path / "records").read_text() == "in the way"


def test_a_folder_that_cannot_be_read_is_named(made, tmp_path, monkeypatch):
    """The package's records are still read."""
    records.write_record(made[0], tmp_path / "shipped")

    def refused(self):
        if self.name == "user":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return listed(self)

    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", refused)
    stages, (problem,) = records.records_frame(tmp_path / "user", shipped=tmp_path / "shipped")
    assert stages["record_id"].n_unique() == 1 and problem.path == tmp_path / "user" and "Permission denied" in problem.reason


def test_what_is_no_file_is_named_and_left_alone(made, tmp_path):
    """A pipe, too, of which a reader would wait for a writer."""
    records.write_record(made[0], tmp_path)
    (tmp_path / "20260101-folder.json").mkdir()
    (tmp_path / "20260101-gone.json").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "20260101-pipe.json")
    stages, problems = frame(tmp_path)
    assert stages["record_id"].n_unique() == 1 and all(reason.startswith("cannot be read (") for _, reason in problems)
    assert [problem.path.name for problem in problems] == ["20260101-folder.json", "20260101-gone.json", "20260101-pipe.json"]


def test_a_clock_that_goes_back_overwrites_nothing(made, tmp_path, monkeypatch):
    class Back(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) - timedelta(days=400)

    records.write_record(made[0], tmp_path)
    monkeypatch.setattr(record, "datetime", Back)
    (earlier,) = recorder.measure_points(plan(), [POINT])
    records.write_record(earlier, tmp_path)
    stages, problems = frame(tmp_path)
    assert problems == [] and stages["record_id"].unique(maintain_order=True).to_list() == [earlier["record_id"], made[0]["record_id"]]
    assert earlier["key"] == made[0]["key"] and all(seconds == 0.5 for seconds in stages["median_seconds"])
    assert datetime.fromisoformat(earlier["finished"]) < datetime.now(UTC) - timedelta(days=399)


def test_a_write_that_breaks_off_for_real_leaves_nothing_half(made, tmp_path):
    """A limit on the size of files, which the system sets against a process: the write ends in the middle."""
    template = tmp_path / "template.txt"
    template.write_text(json.dumps(made[0]))
    code = (
        "import json, resource, sys, tempfile; from pathlib import Path; from ocr_flops.evidence import records\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); tempfile.tempdir = sys.argv[2] + '/tmp'\n"
        "record = json.loads(Path(sys.argv[1]).read_text())\n"
        "try: records.write_record(record, Path(sys.argv[2]) / 'records')\n"
        "except records.Unwritten as problem: print(problem.record == record, problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, template, tmp_path], capture_output=True, text=True)
    assert done.stdout.startswith("True --records: cannot write") and "File too large" in done.stdout, done.stderr
    assert not [*(tmp_path / "records").iterdir(), *(tmp_path / "tmp").rglob("*.json*")]


def test_nothing_is_written_into_an_installed_package(made, tmp_path, monkeypatch):
    """A checkout keeps what is written into it; an installed package is replaced by its next version."""
    package = tmp_path / "site-packages" / "ocr_flops"
    monkeypatch.setattr(store, "PACKAGE", package)
    for write in (lambda: records.check_folder(package / "shipped"), lambda: records.write_record(made[0], package / "shipped")):
        with pytest.raises(of.SpecError, match="^--records: .*/shipped is in an installed package"):
            write()
    assert not package.exists()
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "pyproject.toml").write_text("")
    assert records.check_folder(package / "shipped").is_dir()


def test_a_cache_reads_again_when_a_file_has_come(made, tmp_path):
    shipped = tmp_path / "shipped"
    cache = RecordCache(tmp_path / "mine", shipped)
    first = cache.snapshot()
    assert first.stages.is_empty() and first.problems == () and cache.snapshot() is first
    records.write_record(made[0], shipped)
    (shipped / "gone.json").symlink_to(tmp_path / "gone")
    second = cache.snapshot()
    assert second is not first and second.stages.height == 3 and cache.snapshot() is second
    records.write_record(made[1], tmp_path / "mine")
    assert cache.snapshot().stages["source"].unique(maintain_order=True).to_list() == ["shipped", "user"]


def test_where_records_lie(monkeypatch, tmp_path):
    monkeypatch.delenv("OCR_FLOPS_RECORDS", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert records.records_folder() == tmp_path / ".local/share/ocr_flops/records"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert records.records_folder() == tmp_path / "data/ocr_flops/records"
    monkeypatch.setenv("OCR_FLOPS_RECORDS", str(tmp_path / "mine"))
    assert records.records_folder() == tmp_path / "mine"
    assert records.records_folder("~/given") == tmp_path / "given"
