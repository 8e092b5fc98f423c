"""What `ocr-flops sweep` and `ocr-flops shapes` do: parsed options in, the exit code out."""

import io
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ocr_flops.errors import SpecError
from ocr_flops.files import write_whole
from ocr_flops.units import counted, escape_controls

TOTALS_SHOWN = ("pages", "fitting", "image_tokens", "gpu_hours", "gpu_hours_low", "gpu_hours_high", "cost", "cost_low", "cost_high")
EXAMPLES = (
    "Any value may be a list or a range: sweep=product workload.columns=1:30 workload.batch_size=\\[1,4,16] attention=\\[eager,sdpa] "
    "dtype=\\[bf16,fp16]; sweep=vendor | reference | extended | modes | images | product; measure=meta runs the real model beside it "
    "(engine=remote_code snapshot=DIR trust_remote_code=true: the published code); sweep.level=module adds a row per module, "
    "sweep.zip=\\[KEY,KEY] varies axes together, sweep.price=1.2 or '{l4: 0.8}' adds cost."
)


def run_sweep(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The sweep's folder; it appears when all of it is there.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help=f"As for estimate. {EXAMPLES}")] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT,...",
            help="parquet, csv, json, sqlite, svg, png, md, html, or all (default: the data, parquet alone beyond 65,536 points).",
        ),
    ] = None,
    ttft: Annotated[float, typer.Option(metavar="SECONDS", help="Target whose required rates reports show.")] = 0.5,
    tpot: Annotated[float, typer.Option(metavar="SECONDS", help="Likewise, per output token.")] = 0.02,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a finished sweep in that folder.")] = False,
) -> int:
    """Cost of many workloads, into a folder."""
    import polars as pl

    from ocr_flops.cli.console import render_table, show_bars, terminal_width
    from ocr_flops.reports.sweep_writers import WRITERS, write_sweep
    from ocr_flops.studies.sweeps.plan import load_sweep
    from ocr_flops.studies.sweeps.results import TOTALS, find_files

    with show_bars() as bars:
        chosen = load_sweep(overrides or (), bars)
    _tell(f"{chosen.label}: {counted(chosen.points, 'point')} x {counted(len(chosen.stages), 'stage')} = {counted(chosen.rows, 'row')}")
    for path, reason in chosen.skipped:
        _tell(f"skipped {path}: {reason}")
    targets = {"ttft": ttft, "tpot": tpot}
    for name, value in targets.items():
        if not 0 < value < float("inf"):
            raise SpecError(f"--{name}: {value!r} is not a number of seconds above 0")
    formats = tuple(WRITERS) if form == "all" else form.split(",") if form else ()
    command = _command(overrides or (), out, form, targets, overwrite)
    try:
        with show_bars() as bars:
            write_sweep(chosen, out, formats, overwrite=overwrite, targets=targets, command=command, tell=_tell, progress=bars)
    except KeyboardInterrupt:
        _tell("stopped; the same command goes on from here")
        raise
    if totals := find_files(out, TOTALS):
        frame = pl.read_parquet(totals)
        keys = [name for name in frame.columns[: frame.columns.index("pages")] if frame[name].n_unique() > 1]
        shown = [name for name in frame.columns if name in TOTALS_SHOWN and frame[name].null_count() < frame.height]
        _tell(render_table(frame.select(*keys, *shown), keys, limit=terminal_width()))
    print(out)
    return 0


def list_shapes(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write shapes.sqlite and shapes.parquet into this folder.")],
    min_tiles: Annotated[int, typer.Option(metavar="N", help="Least number of tiles.")] = 1,
    max_tiles: Annotated[int, typer.Option(metavar="N", help="Greatest number of tiles.")] = 1000,
    mode: Annotated[str, typer.Option(help="A resolution mode with tiles.")] = "gundam",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace such files of other shapes there.")] = False,
) -> int:
    """Canonical page shapes by number of tiles, as SQLite and Parquet; files of other shapes stay."""
    from ocr_flops.cli.console import options_named
    from ocr_flops.reports.sweep_writers import fill_database
    from ocr_flops.studies.sweeps.shapes import shapes_frame

    with options_named(min_tiles="--min-tiles", max_tiles="--max-tiles", mode="--mode", workload="--mode"):
        frame = shapes_frame(min_tiles, max_tiles, mode)
    parquet = io.BytesIO()
    frame.write_parquet(parquet, compression="zstd")
    database = sqlite3.connect(":memory:")
    with database:
        fill_database(database, "shapes", [frame])
    files = {out / "shapes.sqlite": database.serialize(), out / "shapes.parquet": parquet.getvalue()}
    database.close()
    for path, content in files.items():
        if not overwrite and path.is_file() and path.read_bytes() != content:
            raise SpecError(f"--out: {path} holds other shapes; choose another folder, or --overwrite to replace it")
    for path, content in files.items():
        print(write_whole(path, content))
    return 0


def _command(overrides: Sequence[str], out: Path, form: str | None, targets: Mapping[str, float], overwrite: bool) -> list[str]:
    """The command line, for the manifest."""
    from ocr_flops.studies.sweeps.results import TARGETS

    options = ["--format", form] if form else []
    for name, value in targets.items():
        options += [] if value == TARGETS[name] else [f"--{name}", f"{value:g}"]
    return ["ocr-flops", "sweep", *overrides, "--out", str(out), *options, *(["--overwrite"] if overwrite else [])]


def _tell(text: str) -> None:
    print(escape_controls(text), file=sys.stderr)
