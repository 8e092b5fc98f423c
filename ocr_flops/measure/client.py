"""Starts the worker as a child process and yields its messages; imports neither torch nor transformers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from ocr_flops.measure.protocol import Request

Message = dict[str, Any]


class Worker:
    """One run of the worker.

    Args:
        request: what to run.
        python: the interpreter that has torch and transformers.

    Iterating yields the worker's messages; the last one is "done" or "error", also when the process dies.
    """

    def __init__(self, request: Request, python: str = sys.executable):
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  closed by close()
        self._process = subprocess.Popen(
            [python, "-m", "ocr_flops.measure"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )
        try:
            self._process.stdin.write(request.to_json() + "\n")
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it died at start; its exit is reported below

    def __iter__(self) -> Iterator[Message]:
        ended = False
        for line in self._process.stdout:
            try:
                message = json.loads(line)
            except json.JSONDecodeError:
                continue  # a library printed something
            ended = ended or message.get("event") in ("done", "error")
            yield message
        code = self._process.wait()
        if not ended:
            yield {"event": "error", "message": f"the worker ended early ({_reason(code)})", "advice": self._last_words()}

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return lines[-1] if lines else "It left no message; on the meta device a spot check needs about 1 GB of memory."

    def cancel(self) -> None:
        """Ends the worker at once."""
        if self._process.poll() is None:
            self._process.kill()

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


def _reason(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
