"""Files are written whole or not at all; a lock is held by one process and ends with it; user data lies where it always did."""

import errno
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocr_flops.errors import SpecError
from ocr_flops.files import try_lock, user_data_dir, write_whole


@pytest.mark.parametrize("content", ["grüße\n", b"\x00\xff"])
def test_a_file_is_written_with_the_folders_above_it(tmp_path, content):
    path = write_whole(tmp_path / "new" / "folder" / "file.bin", content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode("utf-8"))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("stops", "advice"), [(errno.ENOSPC, "free some space"), (errno.EDQUOT, "free some space"), (errno.EACCES, "a folder you can write to")]
)
def test_an_older_file_stays_until_the_new_one_is_complete(tmp_path, monkeypatch, stops, advice):
    path = tmp_path / "report.html"
    path.write_text("older")

    def full(descriptor):
        raise OSError(stops, os.strerror(stops))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpecError, match=f"^--charts: cannot write {path}: {os.strerror(stops)}; .*{advice}") as problem:
        write_whole(path, "newer", "--charts")
    assert "\n" not in str(problem.value)
    assert path.read_text() == "older" and list(tmp_path.iterdir()) == [path]


def test_threads_that_write_the_same_file_leave_one_of_its_versions(tmp_path):
    versions = [str(number) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(len(versions)) as threads:
        assert {*threads.map(lambda text: write_whole(tmp_path / "file", text), versions * 4)} == {tmp_path / "file"}
    assert (tmp_path / "file").read_text() in versions and len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", "text")
    assert not list(tmp_path.iterdir())


def test_a_name_too_long_and_a_file_in_the_way(tmp_path):
    with pytest.raises(SpecError, match="choose a shorter name"):
        write_whole(tmp_path / ("x" * 300), "text")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SpecError, match="choose a folder you can write to"):
        write_whole(tmp_path / "file" / "below", "text")
    assert (tmp_path / "file").read_text() == "in the way"


HOLDER = """
import sys, time
from pathlib import Path
from ocr_flops.files import try_lock
held = try_lock(Path(sys.argv[1]))
print(held is not None, flush=True)
time.sleep(60)
"""


def test_a_lock_has_one_holder_and_ends_with_its_process(tmp_path):
    path = tmp_path / "some.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        assert try_lock(path) is None
        holder.send_signal(signal.SIGKILL)
    with try_lock(path):
        assert try_lock(path) is None
    with try_lock(path) as again:
        assert again is not None


def test_what_cannot_be_locked_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError):
        try_lock(tmp_path)  # a folder


@pytest.mark.skipif(sys.platform != "linux", reason="platformdirs chooses other folders elsewhere")
def test_user_data_lies_where_the_system_says(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert user_data_dir() == Path("/home/someone/.local/share/ocr_flops")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert user_data_dir() == Path("/data/ocr_flops")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # which the XDG standard says to ignore
    assert user_data_dir() == Path("/home/someone/.local/share/ocr_flops")
