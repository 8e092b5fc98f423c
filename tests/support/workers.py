"""Workers that are shell scripts: they say what they are told to, whatever is asked of them."""

import time

from ocr_flops.measure.events import Done, PointFailed, Progress, Ran, Result, Waiting, write_event
from ocr_flops.measure.protocol import Point, Request

POINT = Point(64, 0, 1, 1, 3, 1, 1)
COUNT = Request({}, [POINT])  # six steps
TIME = Request({}, [POINT, POINT], kind="time", device="cpu")
RAN = Ran({"device_name": "x"})
RESULT = Result(0, POINT, {}, {})
FAILED = PointFailed(0, POINT, {"device_name": "x"}, "m", "a")
WAITING = Waiting("another timed run holds the GPU")
DONE = Done()
LONG = "sleep 60"


def step(number):
    return Progress(number, 6, f"step {number}", "model")


def script(folder, *lines, name="python"):
    """An interpreter that ignores its arguments, reads a request and runs lines of shell; an event is said."""
    path = folder / name
    told = [line if isinstance(line, str) else f"echo '{write_event(line)}'" for line in lines]
    path.write_text("\n".join(["#!/bin/sh", "read request", *told, ""]))
    path.chmod(0o755)
    return str(path)


def until(condition, seconds=20.0):
    """What a condition returns once it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return value


def is_alive(pid):
    """Whether a process runs; one that has ended but that nobody has waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(path):
    """The process ids that a script has written into a file, one a line."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []
