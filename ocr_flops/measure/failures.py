"""What went wrong in the worker, in words a person can act on. Standard library only; both sides import it."""

import re
import signal
from dataclasses import dataclass

REQUIRED = {"torch": "2.6", "transformers": "5.20"}
META = "The meta device needs neither a GPU nor much memory and counts the same FLOPs."
INSTALL = f"Install {' and '.join(map(' >= '.join, REQUIRED.items()))} where the worker runs, or choose another interpreter."
MEMORY = f"Choose a smaller grid, batch or context, or close what else uses the memory. {META}"
KERNEL = "This build of torch has no kernel for what was asked on this device: choose another attention, dtype or device."
DISK = "A disk or /dev/shm of the server is full: free some space and run again."
KEPT = "Results that came before are kept."
OTHER_VERSION = "Its ocr-flops may be of another version: install this one there."
TAIL_BYTES = 4000
TAIL_LINES = 20

REMOTE = (
    "The published code needs transformers 4.46.3, einops, addict, easydict, requests, tqdm and pillow: install them in an environment of "
    "its own, and name its interpreter by --python or OCR_FLOPS_SNAPSHOT_PYTHON."
)

_ADVICE = [  # first match wins, in a message or in the end of the worker's log
    (
        r"device: 'cuda'|no nvidia driver|cuda driver version|not compiled with cuda",
        f"Look at nvidia-smi, and whether torch is a build with CUDA. {META}",
    ),
    (r"^request", OTHER_VERSION),
    (r"^snapshot: its code", REMOTE),
    (r"^trust_remote_code|^snapshot:", "The snapshot is the folder that the published model was downloaded into, with its .py files."),
    (r"^checkpoint:", "Weights are read from safetensors only, and every parameter must be among them."),
    (r"named '?ocr_flops", "The worker's interpreter lacks ocr-flops: install it there, or choose another interpreter."),
    (r"named '?(torch|transformers)|cannot import name|is not installed|is too old", INSTALL),
    (r"out of memory|can't allocate memory|cannot allocate memory|bad_alloc|MemoryError", MEMORY),
    (r"no space left on device", DISK),
    (
        r"no available kernel|no kernel image|could not run 'aten::|register_meta|not implemented for|only supported on cuda",
        KERNEL,
    ),
    (r"cannot be run", "Choose what the real model has; everything else is modelled, and marked so."),
]
_SIGNALS = {
    "SIGKILL": f"Most likely the system ran out of memory and ended it. {MEMORY}",
    "SIGABRT": f"A library stopped on an error of its own; the end of the log may say which. {META}",
    "SIGSEGV": f"A library crashed: torch may not fit this machine or its driver. Run again; if it stays, reinstall torch. {META}",
    "SIGILL": "This CPU lacks instructions that torch was built for: install another build of torch where the worker runs.",
    "SIGBUS": DISK,
    "SIGTERM": "Someone or something on the server ended it: run again.",
    "SIGINT": "Someone on the server ended it: run again.",
    "SIGHUP": "Its terminal was closed: run again.",
}


@dataclass(frozen=True)
class Failure:
    """Why something ended early; as an event, the last one.

    Args:
        message: what happened, in one line.
        advice: what to do.
        detail: the end of the worker's log, several lines; may be empty, and names paths of the server.
    """

    message: str
    advice: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.message} ({self.advice})"


STOPPED = Failure("the server was stopped", KEPT)
CANCELLED = Failure("cancelled", KEPT)
ABANDONED = Failure("cancelled: its page was closed", KEPT)
SILENT = Failure("the worker ended without a word on this point", OTHER_VERSION)


def timed_out(seconds: float) -> Failure:
    """The worker was ended because it took longer than it may."""
    limit = f"{seconds / 60:,.3g} min" if seconds >= 60 else f"{seconds:,.3g} s"
    return Failure(
        f"ended after {limit}, the time-out", f"Run fewer points, a smaller grid or batch, or allow more time by --timeout. {KEPT}"
    )


def not_started(problem: OSError) -> Failure:
    """The worker's interpreter could not be started."""
    return Failure(f"the worker cannot be started ({problem.strerror})", _advice(str(problem)) or "Choose another interpreter for it.")


def of_exception(problem: BaseException) -> Failure:
    """Says what an exception in the worker means."""
    kind, lines = type(problem).__name__, str(problem).strip().splitlines()
    text = lines[0] if lines else kind
    message = _in_short(text) or (f"{kind}: {text}" if isinstance(problem, (KeyError, AttributeError, AssertionError)) else text)
    if isinstance(problem, MemoryError):
        message = "out of memory" if text == kind else f"out of memory: {text}"
    if isinstance(problem, ModuleNotFoundError) and problem.name in REQUIRED:
        message = f"{problem.name} is not installed"
    return Failure(message, _advice(f"{text}\n{message}") or f"Nothing was changed. {META}")


def is_known(problem: BaseException) -> bool:
    """Whether an exception's message says enough, so that nobody needs to see where it was raised."""
    return isinstance(problem, (ImportError, MemoryError)) or bool(_advice(str(problem)))


def of_exit(code: int, log: str) -> Failure:
    """Says what a worker's end without a last event means, by its exit code (negative, or 128 more through a shell: the signal that ended
    it) and the end of its stderr."""
    reason = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    ended_by = {one.value: one.name for one in signal.Signals}.get(-code if code < 0 else code - 128, "")
    meaning, lines = _SIGNALS.get(ended_by), tail(log).splitlines()
    said = _advice("\n".join(lines[-3:]))  # further up are warnings of no account
    last = lines[-1] if lines else f"It left no message. {META}"
    advice = (said or meaning) if ended_by == "SIGABRT" else (meaning or said)
    return Failure(f"the worker ended early ({reason})", advice or last, tail(log))


def too_old(name: str, version: str) -> str | None:
    """What to say of a package older than `REQUIRED`; None where it is not."""
    numbers, needed = ([int(part) for part in re.findall(r"\d+", text)[:2]] for text in (version, REQUIRED[name]))
    return f"{name} {version} is too old; the worker needs {name} >= {REQUIRED[name]}" if numbers < needed else None


def tail(log: str) -> str:
    """The last lines of a log that are not blank."""
    return "\n".join([line.rstrip() for line in log[-TAIL_BYTES:].splitlines() if line.strip()][-TAIL_LINES:])


def _advice(text: str) -> str | None:
    return next((advice for pattern, advice in _ADVICE if re.search(pattern, text, re.IGNORECASE)), None)


def _in_short(text: str) -> str | None:
    """torch's words about memory, shortened to what was asked for and where."""
    if cuda := re.match(r"CUDA out of memory\. Tried to allocate ([\d.]+ \w+)", text):
        return f"out of memory on the GPU: {cuda[1]} more did not fit"
    if cpu := re.search(r"DefaultCPUAllocator: (?:can't|not enough) .*?(\d+) bytes", text):
        return f"out of memory on the CPU: {int(cpu[1]) / 1e9:,.1f} GB more did not fit"
    return None
