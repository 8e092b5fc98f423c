"""Two lanes: the closed form equals playing operator by operator, however runs are composed, repeated and synchronised."""

import numpy as np
import pytest

from ocr_flops.timing.lanes import NOTHING, Lanes, replay


def played(program, repeats):
    """Seconds of a program of (host, device, synchronises) runs, each repeated, by playing every operator."""
    whole = [one for run, times in zip(program, repeats, strict=True) for _ in range(times) for one in run]
    moments = replay(*(np.array([one[i] for one in whole]) for i in range(3)))
    return moments[-1].max(), sum(one[1] for one in whole)


def composed(program, repeats):
    schedule = NOTHING
    for run, times in zip(program, repeats, strict=True):
        part = NOTHING
        for host, device, synchronises in run:
            one = Lanes(host, device, host + device)
            part = part.then(one.synchronised() if synchronises else one)
        schedule = schedule.then(part.repeated(times))
    return schedule


@pytest.mark.parametrize("syncs", [0.0, 0.2])
def test_the_closed_form_equals_a_replay(syncs):
    random = np.random.default_rng(1)
    for _ in range(500):
        program = [
            [(random.exponential(), random.exponential(), random.random() < syncs) for _ in range(random.integers(1, 6))] for _ in range(3)
        ]
        repeats = random.integers(1, 5, 3).tolist()
        seconds, device = played(program, repeats)
        schedule = composed(program, repeats)
        assert schedule.seconds == pytest.approx(seconds, rel=1e-12)
        assert schedule.device == pytest.approx(device, rel=1e-12)


def test_runs_are_columns_of_points():
    random = np.random.default_rng(2)
    host, device = random.exponential(size=7), random.exponential(size=(7, 5))
    lanes = NOTHING
    for issue, kernels in zip(host, device, strict=True):
        lanes = lanes.then(Lanes(issue, kernels, issue + kernels))
    for point in range(5):
        alone = replay(host, device[:, point])
        assert lanes.end[point] == pytest.approx(alone[-1, 3], rel=1e-12)
        assert lanes.device[point] == pytest.approx(device[:, point].sum())


def test_the_slower_lane_decides():
    host_bound, device_bound = (Lanes(*one, sum(one)).repeated(100) for one in ((1e-5, 1e-6), (1e-6, 1e-5)))
    assert host_bound.seconds == pytest.approx(100 * 1e-5 + 1e-6) and host_bound.device / host_bound.seconds < 0.11
    assert device_bound.seconds == pytest.approx(1e-6 + 100 * 1e-5) and device_bound.device / device_bound.seconds > 0.99
    assert NOTHING.seconds == 0 and Lanes(1.0, 2.0, 3.0).repeated(0).seconds == 0
