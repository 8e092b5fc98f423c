"""What was measured on this server, for all of its sessions; a page that is loaded anew finds it again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ocr_flops.app import spot_checks
from ocr_flops.spec.specs import ModelSpec

if TYPE_CHECKING:
    import polars as pl


class Store:
    """The latest results as frames of `spot_check.frame`; every method may be called from any thread.

    Args:
        most: results kept; the oldest leaves first.
    """

    def __init__(self, most: int = 500):
        self._most = most
        self._lock = threading.Lock()
        self.changes = 0  # how often something was added
        self._frames: dict[tuple[Any, ...], pl.DataFrame] = {}

    def add(self, model: ModelSpec, message: dict[str, Any]) -> pl.DataFrame:
        """Keeps a "result" message of the worker, in place of an earlier one of the same kind (`spot_check.key`).

        Args:
            model: the dimensions that were sent.
            message: the result.

        Returns:
            Its frame.
        """
        found, key = spot_checks.frame(model, message), (model, *spot_checks.key(message))
        with self._lock:
            self._frames.pop(key, None)
            self._frames[key] = found
            self.changes += 1
            while len(self._frames) > self._most:
                del self._frames[next(iter(self._frames))]
        return found

    def frames(self) -> tuple[pl.DataFrame, ...]:
        """One frame a result, oldest first."""
        with self._lock:
            return tuple(self._frames.values())

    def table(self) -> pl.DataFrame:
        """All results as one frame to be downloaded, the latest first; FLOPs and differences are exact integers. Empty without results."""
        import polars as pl

        frames = self.frames()
        return pl.concat(reversed(frames)) if frames else pl.DataFrame()

    def clear(self) -> None:
        """Forgets everything, for all sessions."""
        with self._lock:
            self._frames.clear()


STORE = Store()  # of this server
