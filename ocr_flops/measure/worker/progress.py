"""How far a request is, as the worker announces it, and how long each stage took."""

from collections import Counter
from collections.abc import Callable
from time import monotonic

from ocr_flops.measure.events import Event, Progress
from ocr_flops.measure.protocol import ProgressStep, Request, progress_steps

Send = Callable[[Event], None]


class Announcer:
    """Announces the steps of a request one after the other, in their order, and times them."""

    def __init__(self, request: Request, send: Send):
        self._send, self._points, self._steps = send, request.workloads, progress_steps(request)
        self._done, self._began = 0, 0.0
        self._seconds: Counter[ProgressStep] = Counter()

    def begin(self, text: str) -> None:
        """The next step begins."""
        self.end()
        step, self._began = self._steps[self._done], monotonic()
        if step.point is not None:
            point = self._points[step.point]
            text += f", grid {point.columns} x {point.rows} (point {step.point + 1} of {len(self._points)})"
        self._send(Progress(self._done, len(self._steps), text, step.stage, step.point))
        self._done += 1

    def end(self) -> None:
        """The step that began last has ended."""
        if self._done and self._began:
            self._seconds[self._steps[self._done - 1]] += monotonic() - self._began
            self._began = 0.0

    def leave(self, point: int) -> None:
        """A point has ended, perhaps before its last step."""
        self.end()
        while self._done < len(self._steps) and self._steps[self._done].point == point:
            self._done += 1

    def seconds(self, point: int) -> dict[str, float]:
        """Seconds of each stage of set-up and of a point."""
        return {step.stage: round(spent, 6) for step, spent in self._seconds.items() if step.point in (None, point)}
