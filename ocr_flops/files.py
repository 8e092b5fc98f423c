"""Files written whole or not at all, locks that end with their process, and where a user's own data lies."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ocr_flops.errors import SpecError

Progress = Callable[[str, int, int], None]  # called with what is done, how much of it, and how much there is
ADVICE = {
    errno.ENOSPC: "free some space, or choose a folder on another disk",
    errno.EDQUOT: "free some space, or choose a folder on another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def no_progress(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def write_whole(path: Path, content: str | bytes, option: str = "--out") -> Path:
    """Writes a file, and the folders above it; it appears under its name only when it is complete, and an older one stays until then.

    Args:
        path: where to; this is returned.
        content: text, written as UTF-8, or bytes.
        option: what the path was given as, for the message.

    Raises:
        SpecError: naming the path, why it could not be written, and what to do.
    """
    partial = path.with_name(f"{path.name}.{threading.get_native_id()}.part")  # another thread may write the same file
    with explain_os_errors(path, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content.encode("utf-8") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())  # else a power cut may leave the new name with nothing in it
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    return path


@contextlib.contextmanager
def explain_os_errors(path: Path, option: str = "--out") -> Iterator[None]:
    """Turns a full disk, or a folder that cannot be written to, into a SpecError that names path and option, why, and what to do."""
    try:
        yield
    except OSError as problem:
        advice = ADVICE.get(problem.errno, "choose a folder you can write to")
        raise SpecError(f"{option}: cannot write {path}: {problem.strerror}; {advice}") from None


def try_lock(path: Path, mode: int = 0o644) -> contextlib.AbstractContextManager[object] | None:
    """Takes the lock that a file stands for, if no other process or thread has it; it ends with this process, however that ends.

    Args:
        path: the file, made where it is missing and left there afterwards. Nothing is written to it.
        mode: its permissions where it is made; 0o666 lets every user of a machine take the lock.

    Returns:
        a context manager whose end gives the lock back; None where somebody else has it. An OSError says that the file system has none.
    """
    from filelock import FileLock, Timeout

    try:
        return FileLock(path, timeout=0, mode=mode, thread_local=False).acquire()
    except Timeout:
        return None


def user_data_dir() -> Path:
    """The folder of what the user keeps: ~/.local/share/ocr_flops on Linux, or below XDG_DATA_HOME; it need not exist."""
    from platformdirs import user_data_path

    return user_data_path("ocr_flops", appauthor=False)


def user_cache_dir() -> Path:
    """The folder of what can be made again: ~/.cache/ocr_flops on Linux, or below XDG_CACHE_HOME; it need not exist."""
    from platformdirs import user_cache_path

    return user_cache_path("ocr_flops", appauthor=False)
