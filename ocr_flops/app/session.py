"""What one open page of the app keeps between the runs of its cells, and the runs of the real model that its buttons ask for."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from ocr_flops.app import runs, spot_checks
from ocr_flops.app.views import Results
from ocr_flops.errors import SpecError
from ocr_flops.evidence import records
from ocr_flops.evidence.records.cache import RECORDS
from ocr_flops.measure.job_queue import QUEUE, Job
from ocr_flops.measure.protocol import Request
from ocr_flops.spec import documents
from ocr_flops.units import workload_label

Start = Callable[["Results", str], None]


class Session:
    """The state of one page. `results` and `document` are set by its cells, `refused` by the last button that asked for a run.

    Attributes:
        owner: names the page in the queue.
        results: of the setting on the page; None where it has no result.
        document: the last file that could be read, while the page's size comes from one.
        refused: why the last run asked for was not started; None where it was.
    """

    def __init__(self) -> None:
        self.owner = uuid4().hex
        self.results: Results | None = None
        self.document: documents.Document | None = None
        self.refused: str | None = None

    def read_document(self, files: Sequence[Any]) -> str | None:
        """Reads an uploaded file and returns why it could not be read; then the last one that could be stays.

        Args:
            files: name and contents of those uploaded; empty where it was taken back.
        """
        try:
            self.document = documents.read_document(files[0].contents, files[0].name) if files else None
        except SpecError as problem:
            return str(problem)
        return None

    def document_page(self, number: int | None, dpi: float | None) -> tuple[dict[str, int], str]:
        """The size of a page of the document as fields of `Setting`, none where there is no document; and which page it is, in words.

        Args:
            number: of the page, from 1; None for the first.
            dpi: at which a PDF is rendered; None for the default.

        Raises:
            SpecError: no such page, or a resolution or size that is not allowed.
        """
        if self.document is None:
            return {}, "no file yet: as set under page size"
        width, height = self.document.page_px(number, dpi)
        return {"width_px": width, "height_px": height}, self.document.page_label(number, dpi)

    def ask(self, start: Start) -> None:
        """Puts a job into the queue, if the setting on the page has a result.

        Args:
            start: `check_model`, `time_model` or `audit_counter` with its options.
        """
        if self.results is None:
            return
        try:
            start(self.results, self.owner)
            self.refused = None
        except SpecError as problem:
            self.refused = str(problem)

    @property
    def job(self) -> Job | None:
        """The latest job of this page."""
        return QUEUE.latest(self.owner)

    @property
    def arrived(self) -> tuple[Any, ...]:
        """What there is to show of runs; another value means that something has come, from this page's run or from others."""
        job = self.job
        return (job and (job.id, len(job.results)), spot_checks.STORE.changes, RECORDS.snapshot())

    def cancel(self) -> None:
        """Ends the latest job, whether it waits or runs."""
        if self.job:
            QUEUE.cancel(self.job.id)


def check_model(results: Results, owner: str, *, scope: str, device: str) -> None:
    """Asks for FLOPs, traffic and peaks of the real model as the setting has it; they go to `spot_checks.STORE`.

    Args:
        results: of the setting.
        owner: who asks.
        scope: one of `spot_checks.SCOPES`.
        device: "auto", "meta" or "cpu".

    Raises:
        SpecError: the setting cannot be run, or the queue takes no more.
    """
    model, setting, request = results.model, results.setting, runs.request_check(results, scope, device)
    points = len(request.workloads)
    label = workload_label(setting.workload) if points == 1 else f"{points} points, {setting.mode}"
    QUEUE.submit(request, label=label, owner=owner, on_result=lambda result: spot_checks.STORE.add(model, result))


def time_model(results: Results, owner: str, *, device: str) -> None:
    """Asks for a timed run of the setting's point; its record is written when it ends.

    Args:
        results: of the setting.
        owner: who asks.
        device: "auto", "cuda" or "cpu".

    Raises:
        SpecError: the setting cannot be timed, its record cannot be written, or the queue takes no more.
    """
    plan, workload = runs.plan_timing(results, device), results.setting.workload
    where = records.records_folder()
    try:
        records.check_folder(where)
    except SpecError:  # whose words are for who runs the server
        raise SpecError("the server's folder of records cannot be written to; tell who runs it") from None
    label = f"{workload_label(workload)}, {workload.output_tokens} output tokens, timed"
    QUEUE.submit(
        plan.request([workload]),
        label=label,
        owner=owner,
        on_result=lambda event: records.write_record(records.make_record(plan, workload, event), where),
    )


def audit_counter(results: Results, owner: str) -> None:
    """Asks which operators torch's counter sees here.

    Args:
        results: of the setting, of which nothing is used.
        owner: who asks.

    Raises:
        SpecError: the queue takes no more, or the server runs nothing.
    """
    runs.check_allowed()
    QUEUE.submit(Request({}, [], kind="audit"), label="torch's FLOP counter", owner=owner)
