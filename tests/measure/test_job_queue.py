"""The queue of runs: order, limits, and every way a job can end. Most workers here are shell scripts."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

import ocr_flops as of
from ocr_flops.measure import failures
from ocr_flops.measure.job_queue import Queue
from ocr_flops.measure.plan import build_request
from ocr_flops.measure.protocol import Request
from tests.support.workers import COUNT, DONE, FAILED, LONG, POINT, RAN, RESULT, TIME, WAITING, is_alive, pids, script, step, until


@pytest.fixture
def queue(tmp_path):
    """Makes queues whose worker is a shell script."""
    made = []

    def make(*lines, **options):
        made.append(Queue(script(tmp_path, *lines, name=f"python{len(made)}"), **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def submit(queue, owner="me", request=COUNT, **rest):
    return queue.submit(request, label=f"job of {owner}", owner=owner, **rest)


def ended(queue, job):
    return until(lambda: (now := queue.job(job.id)) and not now.is_live and now)


def test_a_timed_point_that_fails_is_heard_and_fails_the_job(queue):
    """Of two points the second is still run, and both are kept."""
    heard = []
    runs = queue(FAILED, RESULT, DONE)
    last = ended(runs, submit(runs, request=TIME, on_result=heard.append))
    assert (last.state, last.failure) == ("failed", FAILED.failure)
    assert heard == [FAILED, RESULT] and last.results == (RESULT,)


def test_a_timed_run_that_dies_is_heard_too(queue):
    heard = []
    runs = queue(RAN, "kill -9 $$")
    last = ended(runs, submit(runs, request=TIME, on_result=heard.append))
    assert last.state == "failed" and [(event.ran, event.failure) for event in heard] == [(RAN.ran, last.failure)]


def test_a_job_that_waits_for_the_gpu_says_so(queue):
    runs = queue(step(0), WAITING, LONG)
    job = submit(runs)
    assert until(lambda: runs.job(job.id).text == WAITING.text)


def test_a_job_from_submission_to_done(queue):
    heard = []
    runs = queue(step(0), step(3), RESULT, step(5), DONE)
    first = submit(runs, on_result=heard.append)
    assert (first.state, first.position, first.done, first.total, first.failure) == ("waiting", 1, 0, 6, None)
    last = ended(runs, first)
    assert (last.state, last.position, last.done, last.total, last.failure) == ("done", 0, 6, 6, None)
    assert heard == [RESULT] == list(last.results)
    assert [(stage.name, stage.point, stage.state) for stage in last.stages] == [
        ("torch", None, "done"),
        ("transformers", None, "done"),
        ("model", None, "done"),
        ("vision", 0, "done"),
        ("prefill", 0, "done"),
        ("decode", 0, "done"),
    ]
    assert sum(stage.seconds for stage in last.stages) <= last.running_seconds
    time.sleep(0.02)
    assert runs.job(first.id) == last  # nothing goes on counting
    assert first.state == "waiting"  # a snapshot does not change


def test_a_job_that_runs_shows_where_it_is(queue):
    runs = queue(step(0), step(6), LONG)
    job = submit(runs, request=Request({}, [replace(POINT, output_tokens=3)]))
    now = until(lambda: (now := runs.job(job.id)).text == "step 6" and now)
    assert (now.state, now.done, now.total) == ("running", 6, 8)
    assert [stage.state for stage in now.stages] == ["done"] * 5 + ["running"]
    later = runs.job(job.id)
    assert later.running_seconds > now.running_seconds and later.stages[-1].seconds > now.stages[-1].seconds
    assert later.stages[0] == now.stages[0]
    runs.cancel(job.id)
    assert [stage.state for stage in runs.job(job.id).stages] == ["done"] * 5 + ["cancelled"]


def test_progress_never_goes_back(queue):
    runs = queue(step(4), step(1), step(99), LONG)
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


def test_a_job_that_takes_too_long(queue):
    runs = queue(step(0), RESULT, LONG, timeout_seconds=0.3)
    last = ended(runs, submit(runs))
    assert last.state == "failed" and len(last.results) == 1
    assert last.failure.message == "ended after 0.3 s, the time-out" and "fewer points" in last.failure.advice
    assert last.stages[0].state == "failed" and last.running_seconds < 3


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


def test_a_worker_that_fails(queue):
    runs = queue("echo no torch here >&2; exit 3")
    last = ended(runs, submit(runs))
    assert (last.state, last.failure.message, last.failure.advice) == ("failed", "the worker ended early (exit code 3)", "no torch here")
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
    file = tmp_path / "pids"
    fake = script(tmp_path, f"trap '' PIPE TERM HUP; echo $$ > {file}", step(0), "sleep 20")
    subprocess.run([sys.executable, "-c", SERVER, fake], check=True, timeout=20)
    until(lambda: not is_alive(pids(file)[0]), 5)


def test_a_worker_whose_server_was_killed_ends():
    """During the import of torch, which takes longest and holds the interpreter most."""
    with subprocess.Popen([sys.executable, "-c", SERVER + "time.sleep(60)"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline() == "started\n"
        found = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=True).stdout.split()
        assert len(found) == 1 and os.path.exists(f"/proc/{found[0]}")
        server.kill()
    until(lambda: not is_alive(found[0]), 5)


def test_cancelling_while_torch_is_imported(tiny):
    runs = Queue()
    request = build_request(tiny, [of.Workload(64)], device="meta")
    job = runs.submit(request, label="tiny", owner="me")
    until(lambda: runs.job(job.id).text == "importing torch")
    child = runs._entries[job.id].talk._events._process
    time.sleep(0.3)
    began = time.monotonic()
    runs.cancel(job.id)
    child.wait(5)
    assert time.monotonic() - began < 1 and child.returncode == -9
    assert runs.job(job.id).stages[0].state == "cancelled"
    runs.close()
