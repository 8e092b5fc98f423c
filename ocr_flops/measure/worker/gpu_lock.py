"""One timed run at a time on a GPU: two would share its clock and memory, and both records would be wrong.

Jobs that start together on one machine take a GPU each; the rest wait. A lock ends with the process that holds it, however that ends. Where
none can be had (no such locks on this system, a folder for temporary files of one's own) a run goes ahead without.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import torch

from ocr_flops.measure.worker.machine import gpu_id

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PAUSE_SECONDS = 1


@contextlib.contextmanager
def turn(device: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds a GPU, and makes it the current one: the first of those like the current one that no other timed run holds.

    Args:
        device: "cpu", which is not held, or "cuda".
        waiting: called about once a second while all are held.
    """
    with contextlib.ExitStack() as held:
        if device == "cuda" and fcntl is not None:
            name = torch.cuda.get_device_name()
            alike = [number for number in range(torch.cuda.device_count()) if torch.cuda.get_device_name(number) == name]
            while not any(_take(number, held) for number in alike):
                waiting()
                sleep(PAUSE_SECONDS)
        yield


def _take(number: int, held: contextlib.ExitStack) -> bool:
    """Takes a GPU, unless another process has it."""
    with contextlib.ExitStack() as tried, contextlib.suppress(OSError):  # OSError: it cannot be locked here
        if (name := gpu_id(number)) is not None:
            descriptor = _opened(Path(tempfile.gettempdir()) / f"ocr_flops-{name}.lock")
            tried.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            held.enter_context(tried.pop_all())
    torch.cuda.set_device(number)
    return True


def _opened(path: Path) -> int:
    """A file of everybody's: one that is there is not opened to be created, which systems refuse for other users' files in /tmp."""
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
