"""What a leaner attention kernel saves of the time that a user sees, and how much of it the host hides."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ocr_flops.timing.timing import Timing
from ocr_flops.units import share

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHOWS = 0.5  # of what the device saves: from there on a saving is said to show
LEAST = 0.02  # of the device's seconds: less is no saving that could be hidden


class HiddenSaving(NamedTuple):
    """How much less time one attention mode takes than another.

    Args:
        device: of the device's own seconds, as a part of them.
        expected: of the expected seconds.
        from_batch: the least of `BATCHES` from which on at least half of what the device saves shows in expected seconds; None without one.
        hardware: the device's label.
    """

    device: float
    expected: float
    from_batch: int | None
    hardware: str

    @property
    def is_hidden(self) -> bool:
        """Whether less than half of what the device saves shows."""
        return self.device >= LEAST and self.expected < SHOWS * self.device

    def describe(self, of_what: str) -> str:
        """A sentence; `of_what` is the time meant, "the time to first token"."""
        if self.device < LEAST:
            return f"The device itself saves {share(max(self.device, 0.0), 1)} of {of_what}"
        both = f"the device alone saves {share(self.device, 1)} of {of_what}, a user sees {share(max(self.expected, 0.0), 1)}"
        if not self.is_hidden:
            return both[0].upper() + both[1:]
        since = f"from batch {self.from_batch} on half of it shows" if self.from_batch else f"up to batch {BATCHES[-1]} it stays hidden"
        return f"The host hides it on {self.hardware}: {both}; {since}"


def hidden_saving(base: Timing, best: Timing, stages: tuple[str, ...]) -> HiddenSaving:
    """What `best` saves of the time of `base` in some stages together, as expected, at their point and from which batch on it shows.

    Args:
        base, best: the same point on one device and host, in two attention modes.
        stages: those whose seconds are added.
    """
    batches = np.unique([*BATCHES, base.estimate.workload.batch_size])
    sums = []
    for timing in (base, best):
        together = replace(timing, estimate=replace(timing.estimate, chosen_stages=stages).with_workload(batch_size=batches))
        sums.append([sum(together.lane_seconds(stage, lane) for stage in stages) for lane in ("device", "expected")])
    device, expected = (1 - best_seconds / base_seconds for base_seconds, best_seconds in zip(*sums, strict=True))
    here = int(np.searchsorted(batches, base.estimate.workload.batch_size))
    hides = (expected < SHOWS * device)[np.isin(batches, BATCHES)]
    from_batch = next((batch for number, batch in enumerate(BATCHES) if not hides[number:].any()), None)
    return HiddenSaving(float(device[here]), float(expected[here]), from_batch, base.hardware.label)
