"""The command `ocr-flops report`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ocr_flops.timing.estimate import estimate_run

NAME = "report"
FORMATS = ("html",)


def add_report(actions: Any, epilog: str) -> None:
    """Adds the command to the command line.

    Args:
        actions: what `add_subparsers` returned.
        epilog: which overrides there are.
    """
    parser = actions.add_parser(NAME, help="one self-contained HTML file: findings, charts with controls, tables, evidence", epilog=epilog)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for estimate; hardware=... adds times")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="(default %(default)s)")
    parser.add_argument("--charts", choices=("svg", "png"), help="also write every chart of the app as an image beside it")
    parser.add_argument(
        "--out", type=Path, default=Path(), metavar="PATH", help="a folder, or a file that ends in .html (default: ./report.html)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Writes the report, and the charts if they are wanted; prints the path of each file."""
    from ocr_flops.files import write_whole
    from ocr_flops.reports.estimate_report import write_report
    from ocr_flops.reports.estimate_subject import Subject
    from ocr_flops.reports.gallery import gallery
    from ocr_flops.reports.images import chart_images
    from ocr_flops.spec import load_run

    chosen = load_run(options.overrides)
    subject = Subject(estimate_run(chosen), chosen.hardware)
    suffix = f".{options.format}"
    path = options.out if options.out.suffix == suffix else options.out / f"{NAME}{suffix}"
    print(write_report(path, subject, in_child=False))
    if options.charts:
        for name, image in chart_images(gallery(subject), options.charts, in_child=False).items():
            print(write_whole(path.with_name(f"{path.stem}_{name}.{options.charts}"), image))
    return 0
