"""The command `ocr-flops report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ocr_flops.cli.console import Overrides

NAME = "report"


def write_report(
    overrides: Overrides = None,
    form: Annotated[Literal["html"], typer.Option("--format", help="Of the report.")] = "html",
    charts: Annotated[Literal["svg", "png"] | None, typer.Option(help="Also write every chart of the app as an image beside it.")] = None,
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="A folder, or a file that ends in .html.", show_default="./report.html")
    ] = Path(),
) -> int:
    """One self-contained HTML file: findings, charts with controls, tables, evidence."""
    from ocr_flops.cli.console import show_progress
    from ocr_flops.files import write_whole
    from ocr_flops.reports.estimate_report import write_report as write_page
    from ocr_flops.reports.estimate_subject import Subject
    from ocr_flops.reports.gallery import gallery
    from ocr_flops.reports.images import chart_images
    from ocr_flops.spec.run_spec import load_run
    from ocr_flops.timing.estimate import estimate_run

    run = load_run(overrides or ())
    subject = Subject(estimate_run(run), run.hardware)
    suffix = f".{form}"
    path = out if out.suffix == suffix else out / f"{NAME}{suffix}"
    with show_progress("drawing charts"):
        print(write_page(path, subject, in_child=False))
        if charts:
            for name, image in chart_images(gallery(subject), charts, in_child=False).items():
                print(write_whole(path.with_name(f"{path.stem}_{name}.{charts}"), image))
    return 0
