"""Starts the worker as a child process and yields its messages; imports neither torch nor transformers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from ocr_flops.errors import SpecError
from ocr_flops.measure import failures
from ocr_flops.measure.protocol import Request

Message = dict[str, Any]
VARIABLE = "OCR_FLOPS_PYTHON"


def interpreter(python: str | None = None) -> str:
    """The interpreter that runs the worker: the one named, else that of the environment variable OCR_FLOPS_PYTHON, else this one.

    Args:
        python: a path, or the name of a program.

    Raises:
        SpecError: it does not exist, or cannot be executed.
    """
    named, where = (python, "--python") if python else (os.environ.get(VARIABLE), VARIABLE)
    if not named:
        return sys.executable
    if found := shutil.which(named):
        return found
    what = "is not there" if not os.path.exists(named) else "cannot be executed" if os.path.isfile(named) else "is not a file"
    raise SpecError(f"{where}: {named!r} {what}; name the Python interpreter that has torch and transformers, as in ~/venv/bin/python")


class Worker:
    """One run of the worker.

    Args:
        request: what to run.
        python: the interpreter that has torch and transformers; `interpreter()` where it is None.

    Iterating yields the worker's messages; the last one is "done" or "error", also when the process dies. An error carries the end of
    the worker's log as "detail". `cancel` may be called from any thread, at any time.

    Raises:
        OSError: the interpreter cannot be started.
        SpecError: as `interpreter`.
    """

    def __init__(self, request: Request, python: str | None = None):
        python = python or interpreter()
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115  closed by close()
        try:
            self._process = subprocess.Popen(
                [python, "-m", "ocr_flops.measure"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # a process group of its own, so that its children end with it
            )
        except OSError:
            self._log.close()
            raise
        with contextlib.suppress(BrokenPipeError):  # it died at start; its exit is reported below
            self._process.stdin.write(request.to_json() + "\n")
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def __iter__(self) -> Iterator[Message]:
        for line in self._process.stdout:
            try:
                message = json.loads(line)
            except json.JSONDecodeError:
                continue  # a library printed something
            if not isinstance(message, dict) or "event" not in message:
                continue
            if message["event"] == "error" and (detail := failures.tail(self._logged())):
                message["detail"] = detail
            yield message
            if message["event"] in ("done", "error"):
                self.cancel()  # all is said: do not wait for the interpreter to take torch down
                self._process.wait()
                return
        code = self._process.wait()
        self._kill()  # what it may have left behind
        yield failures.of_exit(code, self._logged()).as_message()

    def _logged(self) -> str:
        """The end of the log, read without moving the offset at which the worker writes."""
        size = os.fstat(self._log.fileno()).st_size
        start = max(0, size - failures.TAIL_BYTES)
        if hasattr(os, "pread"):
            data = os.pread(self._log.fileno(), size - start, start)
        else:
            self._log.seek(start)
            data = self._log.read()
        return data.decode("utf-8", "replace")

    def cancel(self) -> None:
        """Ends the worker and all its children at once."""
        if self._process.returncode is None:
            self._kill()

    def _kill(self) -> None:
        if not hasattr(os, "killpg"):
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError):  # all of its process group is gone already
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the worker and frees what it held here."""
        self.cancel()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
