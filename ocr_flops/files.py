"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ocr_flops.errors import SpecError

ADVICE = {
    errno.ENOSPC: "free some space, or choose a folder on another disk",
    errno.EDQUOT: "free some space, or choose a folder on another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write_whole(path: Path, content: str | bytes, option: str = "--out") -> Path:
    """Writes a file, and the folders above it; it appears under its name only when it is complete, and an older one stays until then.

    Args:
        path: where to.
        content: text, written as UTF-8, or bytes.
        option: what the path was given as, for the message.

    Returns:
        the path.

    Raises:
        SpecError: naming the path, why it could not be written, and what to do.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
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
    except OSError as problem:
        advice = ADVICE.get(problem.errno, "choose a folder you can write to")
        raise SpecError(f"{option}: cannot write {path}: {problem.strerror}; {advice}") from None
    return path
