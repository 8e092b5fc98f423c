"""One timed run at a time on a GPU: two would share its clock and memory, and both records would be wrong.

Jobs that start together on one machine take a GPU each; the rest wait. A lock ends with the process that holds it, however that ends, and
holds between all users of a machine. Where none can be had (no such locks on this system, a folder for temporary files of one's own) a run
goes ahead without.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import torch

from ocr_flops.files import try_lock
from ocr_flops.measure.worker.machine import gpu_id

PAUSE_SECONDS = 1


@contextlib.contextmanager
def hold_gpu(device: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds a GPU ("cuda"; "cpu" is not held), and makes it the current one: the first of those like the current one that no other timed
    run holds. `waiting` is called about once a second while all are held."""
    with contextlib.ExitStack() as held:
        if device == "cuda":
            name = torch.cuda.get_device_name()
            alike = [number for number in range(torch.cuda.device_count()) if torch.cuda.get_device_name(number) == name]
            while not any(_take(number, held) for number in alike):
                waiting()
                sleep(PAUSE_SECONDS)
        yield


def _take(number: int, held: contextlib.ExitStack) -> bool:
    """Takes a GPU, unless another process has it."""
    with contextlib.suppress(OSError):  # it cannot be locked here
        if (name := gpu_id(number)) is not None:
            lock = try_lock(Path(tempfile.gettempdir()) / f"ocr_flops-{name}.lock", mode=0o666)
            if lock is None:
                return False
            held.enter_context(lock)
    torch.cuda.set_device(number)
    return True
