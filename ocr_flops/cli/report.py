"""The command `ocr-flops report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ocr_flops.cli.console import Overrides

NAME = "report"


def write_report(
    overrides: Overrides = None,
    form: Annotated[Literal["html", "md"], typer.Option("--format", help="Of the report.")] = "html",
    charts: Annotated[
        Literal["svg", "png"] | None, typer.Option(help="Also write every chart of the app as an image beside it; Markdown shows them.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="A folder, or a file that ends in .html or .md.", show_default="./report.html")
    ] = Path(),
) -> int:
    """One self-contained HTML file, or Markdown: findings, charts (in HTML with controls), tables, evidence."""
    from ocr_flops.cli.console import show_progress
    from ocr_flops.reports import estimate_report
    from ocr_flops.reports.estimate_subject import Subject
    from ocr_flops.spec.run_spec import load_run
    from ocr_flops.timing.estimate import estimate_run

    run = load_run(overrides or ())
    subject = Subject(estimate_run(run), run.hardware)
    path = out if out.suffix == f".{form}" else out / f"{NAME}.{form}"
    with show_progress("drawing charts"):
        for file in estimate_report.write_report(path, subject, images=charts or "", in_child=False):
            print(file)
    return 0
