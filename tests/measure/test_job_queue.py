"""The queue of runs: order, limits, and every way a job can end. Most workers here are shell scripts."""

import os
import subprocess
import sys
import threading
import time

import pytest

import ocr_flops as of
from ocr_flops.measure import failures
from ocr_flops.measure.job_queue import Queue
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.protocol import Request

REQUEST = Request({}, [{"columns": 1, "rows": 1, "output_tokens": 1}])  # six steps
PROGRESS = """echo '{"event": "progress", "done": %d, "total": 6, "text": "step %d"}'"""
RESULT = """echo '{"event": "result", "point": 0}'"""
DONE = """echo '{"event": "done"}'"""
LONG = "sleep 60"


@pytest.fixture
def queue(tmp_path):
    """Makes queues whose worker is a shell script."""
    made = []

    def make(*lines, **options):
        path = tmp_path / f"python{len(made)}"
        path.write_text("\n".join(["#!/bin/sh", "read request", *lines, ""]))
        path.chmod(0o755)
        made.append(Queue(str(path), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def submit(queue, owner="me", request=REQUEST, **rest):
    return queue.submit(request, label=f"job of {owner}", owner=owner, **rest)


def until(condition, seconds=20.0):
    """What a condition returns once it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return value


def ended(queue, job):
    return until(lambda: (now := queue.job(job.id)) and not now.is_live and now)


def is_alive(pid):
    """Whether a process runs; one that has ended but that nobody has waited for does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(path):
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_a_timed_point_that_fails_is_heard_and_fails_the_job(queue):
    """Of two points the second is still run, and both are kept."""
    failed = """echo '{"event": "failed", "point": 0, "message": "out of memory", "advice": "Choose less."}'"""
    heard = []
    runs = queue(failed, RESULT, DONE)
    last = ended(runs, submit(runs, on_result=heard.append))
    assert (last.state, last.failure) == ("failed", failures.Failure("out of memory", "Choose less."))
    assert [message["event"] for message in heard] == ["failed", "result"] and len(last.results) == 1


def test_a_job_that_waits_for_the_gpu_says_so(queue):
    waiting = """echo '{"event": "waiting", "text": "another timed run holds the GPU"}'"""
    runs = queue(PROGRESS % (0, 0), waiting, LONG)
    job = submit(runs)
    assert until(lambda: runs.job(job.id).text == "another timed run holds the GPU")


def test_a_job_from_submission_to_done(queue):
    heard = []
    runs = queue(PROGRESS % (0, 0), PROGRESS % (3, 3), RESULT, PROGRESS % (5, 5), DONE)
    first = submit(runs, on_result=heard.append)
    assert (first.state, first.position, first.done, first.total, first.failure) == ("waiting", 1, 0, 6, None)
    last = ended(runs, first)
    assert (last.state, last.position, last.done, last.total, last.failure) == ("done", 0, 6, 6, None)
    assert heard == [{"event": "result", "point": 0}] == list(last.results)
    assert [(stage.name, stage.point, stage.state, stage.done, stage.total) for stage in last.stages] == [
        ("torch", None, "done", 1, 1),
        ("transformers", None, "done", 1, 1),
        ("model", None, "done", 1, 1),
        ("vision", 0, "done", 1, 1),
        ("prefill", 0, "done", 1, 1),
        ("decode", 0, "done", 1, 1),
    ]
    assert sum(stage.seconds for stage in last.stages) <= last.running_seconds
    time.sleep(0.02)
    assert runs.job(first.id) == last  # nothing goes on counting
    assert first.state == "waiting"  # a snapshot does not change


def test_a_job_that_runs_shows_where_it_is(queue):
    runs = queue(PROGRESS % (0, 0), PROGRESS % (6, 6), LONG)
    job = submit(runs, request=Request({}, [{"columns": 1, "rows": 1, "output_tokens": 3}]))
    now = until(lambda: (now := runs.job(job.id)).text == "step 6" and now)
    assert (now.state, now.done, now.total) == ("running", 6, 8)
    assert [stage.state for stage in now.stages] == ["done"] * 5 + ["running"]
    assert (now.stages[-1].done, now.stages[-1].total) == (1, 3)
    later = runs.job(job.id)
    assert later.running_seconds > now.running_seconds and later.stages[-1].seconds > now.stages[-1].seconds
    assert later.stages[0] == now.stages[0]
    runs.cancel(job.id)
    assert [stage.state for stage in runs.job(job.id).stages] == ["done"] * 5 + ["cancelled"]


def test_progress_never_goes_back(queue):
    runs = queue(PROGRESS % (4, 4), PROGRESS % (1, 1), PROGRESS % (99, 99), LONG)
    job = submit(runs)
    assert until(lambda: (now := runs.job(job.id)).text == "step 99" and now).done == 5


def test_one_at_a_time_in_order(queue, tmp_path):
    log = tmp_path / "log"
    runs = queue(f"echo begin $request >> {log}; sleep 0.05; echo end >> {log}", DONE)
    jobs = [submit(runs, owner, Request({}, [], image=owner)) for owner in "abcd"]
    assert [job.position for job in runs.jobs()][-3:] == [1, 2, 3] or [job.position for job in jobs] == [1, 2, 3, 4]
    assert [ended(runs, job).state for job in jobs] == ["done"] * 4
    lines = log.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["begin", "end"] * 4
    assert [owner for line in lines[::2] for owner in "abcd" if f'"image": "{owner}"' in line] == list("abcd")


def test_those_that_wait_move_up(queue):
    runs = queue(LONG)
    first, second, third = (submit(runs, owner) for owner in "abc")
    until(lambda: runs.job(first.id).state == "running")
    assert [(job.owner, job.state, job.position) for job in runs.jobs()] == [("a", "running", 0), ("b", "waiting", 1), ("c", "waiting", 2)]
    assert runs.cancel(second.id) and not runs.cancel(second.id) and not runs.cancel(99)
    gone = runs.job(second.id)
    assert (gone.state, gone.failure, gone.running_seconds) == ("cancelled", failures.CANCELLED, 0)
    assert [(job.owner, job.position) for job in runs.jobs()] == [("a", 0), ("c", 1)]
    runs.cancel(first.id)
    until(lambda: runs.job(third.id).state == "running")
    assert runs.job(first.id).state == "cancelled" and not runs.job(first.id).failure.detail


def test_cancelling_kills_the_children_too(queue, tmp_path):
    file = tmp_path / "pids"
    runs = queue(f"sleep 60 & echo $$ $! > {file}; wait")
    job = submit(runs)
    found = until(lambda: len(pids(file)) == 2 and pids(file))
    assert all(map(is_alive, found))
    began = time.monotonic()
    runs.cancel(job.id)
    until(lambda: not any(map(is_alive, found)))
    assert time.monotonic() - began < 2


def test_what_a_worker_leaves_behind_ends_with_it(queue, tmp_path):
    file = tmp_path / "pids"
    runs = queue(f"sleep 60 > /dev/null 2>&1 & echo $! > {file}", DONE)
    assert ended(runs, submit(runs)).state == "done"
    until(lambda: not is_alive(pids(file)[0]))


def test_a_job_that_takes_too_long(queue):
    runs = queue(PROGRESS % (0, 0), RESULT, LONG, timeout_seconds=0.3)
    last = ended(runs, submit(runs))
    assert last.state == "failed" and len(last.results) == 1
    assert last.failure.message == "ended after 0.3 s, the longest a spot check may run" and "fewer points" in last.failure.advice
    assert last.stages[0].state == "failed"
    assert last.running_seconds < 3
    assert failures.timed_out(600).message.startswith("ended after 10 min")


def test_a_job_whose_page_was_closed(queue):
    runs = queue(LONG, abandoned_seconds=0.3)
    watched, left, waiting = (submit(runs, owner) for owner in "abc")
    until(lambda: runs.job(watched.id) and not [job for job in runs.jobs() if job.owner in "bc"])
    assert runs.latest("a").state == "running"
    for job in (left, waiting):
        now = runs.job(job.id)
        assert (now.state, now.failure, now.running_seconds) == ("cancelled", failures.ABANDONED, 0)
    until(lambda: not runs.jobs())  # looking at the queue is not looking at one's job
    assert runs.job(watched.id).failure == failures.ABANDONED


def test_one_job_an_owner_and_no_more_than_fit(queue):
    runs = queue(LONG, most_waiting=2)
    first = submit(runs, "a")
    until(lambda: runs.job(first.id).state == "running")
    with pytest.raises(of.SpecError, match="^spot check: job of a is still running; one at a time each, so wait for it or cancel it$"):
        submit(runs, "a")
    second, _ = submit(runs, "b"), submit(runs, "c")
    with pytest.raises(of.SpecError, match="^spot check: 2 are waiting, at most 2 may; try again when one has ended$"):
        submit(runs, "d")
    with pytest.raises(of.SpecError, match="^spot check: job of b is still waiting"):
        submit(runs, "b")
    runs.cancel(second.id)
    assert submit(runs, "b").position == 2
    assert runs.latest("b").id != second.id and runs.latest("nobody") is None


def test_a_callback_that_raises_fails_its_job_and_no_other(queue):
    def full(message):
        raise OSError("disk full")

    runs = queue(RESULT, LONG)
    last = ended(runs, submit(runs, on_result=full))
    assert (last.state, last.failure.message) == ("failed", "the result could not be kept: disk full")
    assert len(last.results) == 1
    other = submit(runs, "another")
    assert until(lambda: (now := runs.job(other.id)).results and now).state == "running"


def test_a_callback_may_use_the_queue(queue):
    runs = queue(RESULT, LONG)
    done = threading.Event()

    def stop(message):
        thread = threading.Thread(target=lambda: (runs.cancel(runs.jobs()[0].id), done.set()))
        thread.start()
        thread.join(5)

    assert ended(runs, submit(runs, on_result=stop)).state == "cancelled" and done.is_set()


@pytest.mark.parametrize(
    ("lines", "message", "advice"),
    [
        (["echo Aborted >&2; kill -9 $$"], "the worker ended early (killed by signal 9)", "ran out of memory"),
        (["echo no torch here >&2; exit 3"], "the worker ended early (exit code 3)", "no torch here"),
        (["""echo '{"event": "error", "message": "m", "advice": "a"}'"""], "m", "a"),
        (["echo 3; echo [1]; echo '{}'; echo nonsense"], "the worker ended early (exit code 0)", "left no message"),
        (["""echo '{"event": "progress"}'""", LONG], "done", ""),
    ],
)
def test_a_worker_that_fails(queue, lines, message, advice):
    runs = queue(*lines)
    last = ended(runs, submit(runs))
    assert last.state == "failed" and message in last.failure.message and advice in last.failure.advice
    assert ended(runs, submit(runs)).state == "failed"  # and the queue goes on


def test_an_interpreter_that_is_not_there():
    runs = Queue("/nowhere/python")
    last = ended(runs, submit(runs))
    assert last.failure.message == "the worker cannot be started (No such file or directory)"
    assert last.failure.advice == "Choose another interpreter for it."
    runs.close()


def test_only_the_last_jobs_are_kept(queue):
    runs = queue(DONE, kept=2)
    jobs = []
    for _ in range(4):
        jobs.append(submit(runs))
        ended(runs, jobs[-1])
    assert [runs.job(job.id) is None for job in jobs] == [True, True, False, False]


def test_closing_ends_all_and_a_later_job_starts_anew(queue):
    runs = queue(LONG)
    jobs = [submit(runs, owner) for owner in "ab"]
    until(lambda: runs.job(jobs[0].id).state == "running")
    runs.close()
    assert [runs.job(job.id).failure for job in jobs] == [failures.STOPPED] * 2
    again = submit(runs)
    until(lambda: runs.job(again.id).state == "running")


def test_many_threads_at_once(queue):
    runs = queue(RESULT, DONE, most_waiting=100, kept=100)
    heard, problems = [], []

    def work(owner):
        try:
            for turn in range(3):
                job = submit(runs, owner, on_result=heard.append)
                if turn == 1:
                    runs.cancel(job.id)
                ended(runs, job)
                runs.jobs()
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(f"owner {number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and not runs.jobs() and 12 <= len(heard) <= 18


def test_importing_starts_nothing():
    code = (
        "import sys, threading, ocr_flops.measure.job_queue; print(threading.active_count(), 'torch' in sys.modules, 'polars' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == [
        "1",
        "False",
        "False",
    ]


SERVER = """
import sys, time
from ocr_flops.measure.protocol import Request
from ocr_flops.measure.job_queue import Queue
queue = Queue(*sys.argv[1:])
queue.submit(Request({}, []), label="", owner="")
while not queue.jobs()[0].stages[0].seconds:
    time.sleep(0.005)
print("started", flush=True)
"""


def test_at_exit_the_worker_is_killed(tmp_path):
    file, fake = tmp_path / "pids", tmp_path / "python"
    fake.write_text(f"#!/bin/sh\ntrap '' PIPE TERM HUP\necho $$ > {file}\n{PROGRESS % (0, 0)}\nsleep 20\n")
    fake.chmod(0o755)
    subprocess.run([sys.executable, "-c", SERVER, str(fake)], check=True, timeout=20)
    until(lambda: not is_alive(pids(file)[0]), 5)


def test_a_worker_whose_server_was_killed_ends():
    """During the import of torch, which takes longest and holds the interpreter most."""
    with subprocess.Popen([sys.executable, "-c", SERVER + "time.sleep(60)"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline() == "started\n"
        found = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=True).stdout.split()
        assert len(found) == 1 and os.path.exists(f"/proc/{found[0]}")
        server.kill()
    until(lambda: not is_alive(found[0]), 5)


def test_the_real_worker_through_the_queue(tiny):
    runs, texts, steps, heard = Queue(), set(), [], []
    request = build_request(tiny, [of.Workload(256, 128, 2, 1, output_tokens=2), of.Workload(64, output_tokens=1)], device="meta")
    job = runs.submit(request, label="tiny", owner="me", on_result=heard.append)
    while (now := runs.job(job.id)).is_live:
        texts.add(now.text)
        steps.append(now.done)
        assert now.done <= now.total == 10
        time.sleep(0.01)
    runs.close()
    assert now.state == "done" and len(heard) == 2
    assert steps == sorted(steps)
    assert {"importing torch", "importing transformers"} <= texts
    places = [(stage.name, stage.point, stage.total) for stage in now.stages]
    points = [(name, point, 2 if (name, point) == ("decode", 0) else 1) for point in (0, 1) for name in ("vision", "prefill", "decode")]
    assert places == [("torch", None, 1), ("transformers", None, 1), ("model", None, 1), *points]
    assert all(stage.seconds > 0 for stage in now.stages)


def test_cancelling_while_torch_is_imported(tiny):
    runs = Queue()
    request = build_request(tiny, [of.Workload(64)], device="meta")
    job = runs.submit(request, label="tiny", owner="me")
    until(lambda: runs.job(job.id).text == "importing torch")
    child = runs._entries[job.id].worker._process
    time.sleep(0.3)
    began = time.monotonic()
    runs.cancel(job.id)
    child.wait(5)
    assert time.monotonic() - began < 1 and child.returncode == -9
    assert runs.job(job.id).stages[0].state == "cancelled"
    runs.close()
