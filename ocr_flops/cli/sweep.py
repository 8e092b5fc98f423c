"""What `ocr-flops sweep` and `ocr-flops shapes` do: parsed options in, the exit code out."""

from __future__ import annotations

import argparse
import io
import sqlite3
import sys
from pathlib import Path

EXAMPLES = (
    "any value may be a list or a range: sweep=product workload.columns=1:30 workload.batch_size=[1,4,16] attention=[eager,sdpa] "
    "dtype=[bf16,fp16]; sweep=vendor|reference|extended|modes|images|product; measure=meta runs the real model beside it"
)


def add_sweep(actions: argparse._SubParsersAction) -> None:
    """Adds the subcommand `sweep`."""
    parser = actions.add_parser("sweep", help="cost of many workloads, into a folder", epilog=EXAMPLES)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=f"as for estimate, and {EXAMPLES}")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="the run's folder; it appears when all of it is there")
    parser.add_argument(
        "--format",
        metavar="FORMAT,...",
        help="parquet, csv, json, sqlite, svg, png, md, html, or all (default: the data, parquet alone beyond 65,536 points)",
    )
    parser.add_argument(
        "--ttft", type=float, default=0.5, metavar="SECONDS", help="target whose required rates reports show (default %(default)s)"
    )
    parser.add_argument("--tpot", type=float, default=0.02, metavar="SECONDS", help="likewise, per output token (default %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a finished sweep in that folder")
    parser.set_defaults(run=sweep)


def add_shapes(actions: argparse._SubParsersAction) -> None:
    """Adds the subcommand `shapes`."""
    parser = actions.add_parser("shapes", help="canonical page shapes by number of tiles, as SQLite and Parquet")
    parser.add_argument("--min-tiles", type=int, default=1, metavar="N", help="(default %(default)s)")
    parser.add_argument("--max-tiles", type=int, default=1000, metavar="N", help="(default %(default)s)")
    parser.add_argument("--mode", default="gundam", help="a mode with tiles (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="write shapes.sqlite and shapes.parquet into this folder")
    parser.add_argument("--overwrite", action="store_true", help="replace such files of other shapes there")
    parser.set_defaults(run=shapes)


def sweep(options: argparse.Namespace) -> int:
    """Computes a sweep into a folder and prints its path."""
    from ocr_flops.errors import SpecError
    from ocr_flops.studies.sweeps.plan import load_sweep
    from ocr_flops.studies.sweeps.results import WRITERS
    from ocr_flops.studies.sweeps.runner import run

    chosen = load_sweep(options.overrides)
    counts = ((chosen.points, "point"), (len(chosen.stages), "stage"), (chosen.rows, "row"))
    points, stages, rows = (f"{count:,} {name}{'s' * (count != 1)}" for count, name in counts)
    _tell(f"{chosen.label}: {points} x {stages} = {rows}")
    for path, reason in chosen.skipped:
        _tell(f"skipped {path}: {reason}")
    targets = {"ttft": options.ttft, "tpot": options.tpot}
    for name, value in targets.items():
        if not 0 < value < float("inf"):
            raise SpecError(f"--{name}: {value!r} is not a number of seconds above 0")
    try:
        run(
            chosen,
            options.out,
            tuple(WRITERS) if options.format == "all" else options.format.split(",") if options.format else None,
            overwrite=options.overwrite,
            targets=targets,
            command=_words(options),
            tell=_tell,
            progress=sys.stderr.isatty(),
        )
    except KeyboardInterrupt:
        _tell("stopped; the same command goes on from here")
        raise
    print(options.out)
    return 0


def shapes(options: argparse.Namespace) -> int:
    """Writes the canonical shapes and prints the files' paths; files of other shapes stay."""
    from ocr_flops.errors import SpecError
    from ocr_flops.files import write_whole
    from ocr_flops.studies.sweeps.results import Table, fill
    from ocr_flops.studies.sweeps.shapes import KEY, shapes

    frame = shapes(options.min_tiles, options.max_tiles, options.mode)
    parquet = io.BytesIO()
    frame.write_parquet(parquet, compression="zstd")
    database = sqlite3.connect(":memory:")
    with database:
        fill(database, Table("shapes", KEY, frame, (("columns", "rows"), ("image_tokens",), ("vendor_supported",))))
    files = {options.out / "shapes.sqlite": database.serialize(), options.out / "shapes.parquet": parquet.getvalue()}
    database.close()
    for path, content in files.items():
        if not options.overwrite and path.is_file() and path.read_bytes() != content:
            raise SpecError(f"--out: {path} holds other shapes; choose another folder, or --overwrite to replace it")
    for path, content in files.items():
        print(write_whole(path, content))
    return 0


def _words(options: argparse.Namespace) -> list[str]:
    """The command line."""
    formats = ["--format", options.format] if options.format else []
    return ["ocr-flops", "sweep", *options.overrides, "--out", str(options.out), *formats, *(["--overwrite"] if options.overwrite else [])]


def _tell(text: str) -> None:
    print(text, file=sys.stderr)
