"""What `ocr-flops verify` does: which points it runs, which numbers it compares, what it prints and how it exits."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from ocr_flops.cli.console import Progress, apart, chosen, listed, write
from ocr_flops.errors import SpecError
from ocr_flops.spec.specs import STAGES

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.evidence.verify import Case
    from ocr_flops.measure.plan import ModelSource
    from ocr_flops.spec import RunSpec

OF_THE_MODEL = ("model", "stages", "engine")  # overrides that say what runs, not at which point


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ocr-flops verify`, but for those of every command's output."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="model=... and stages=[...] choose what runs, engine=remote_code snapshot=DIR trust_remote_code=true the vendor's own code, "
        "checkpoint=DIR local weights; any other choice runs that one point",
    )
    parser.add_argument("--quick", action="store_true", help="a handful of points instead of all grids and modes")
    parser.add_argument("--kind", choices=("count", "trace"), help="only FLOPs as torch counts them, or only traces; both by default")
    parser.add_argument(
        "--level", type=listed, metavar="LEVEL,...", help="of layer, module, stage, total (end to end); all by default", default=()
    )
    parser.add_argument(
        "--what", type=listed, metavar="WHAT,...", help="of flops, operators, traffic, peak, parameters, kv; all by default", default=()
    )
    parser.add_argument("--stage", type=listed, metavar="STAGE,...", help="of vision, prefill, decode", default=())
    parser.add_argument("--module", type=listed, metavar="MODULE,...", help="only these, as in sam.mlp,clip.mlp", default=())
    parser.add_argument(
        "--device", default="meta", choices=("auto", "meta", "cpu", "cuda"), help="where the real model runs (default %(default)s)"
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="interpreter that runs the model, with torch and transformers (default: that of OCR_FLOPS_PYTHON, or this one)",
    )
    parser.add_argument(
        "--decode-steps", type=int, default=3, metavar="STEPS", help="decode steps run at most at one point (default %(default)s)"
    )
    parser.add_argument(
        "--audit",
        action="store_true",
        help="run torch operators here and show which of their FLOPs its counter sees, for the workload chosen",
    )
    parser.add_argument("--record", action="store_true", help="keep the summary as the evidence that the app shows")


def verify_model(options: argparse.Namespace) -> int:
    """Compares and prints; 1 on any difference, 0 otherwise. What cannot be asked for is a SpecError."""
    from ocr_flops.evidence import verify
    from ocr_flops.evidence.verify import summary
    from ocr_flops.measure.client import interpreter
    from ocr_flops.measure.plan import ModelSource
    from ocr_flops.spec import load_run

    overrides, chosen_source = apart(options.overrides)
    options.overrides = overrides
    run = load_run(overrides)
    source = ModelSource(run.engine.name, **chosen_source)
    options.python = interpreter(options.python)
    if options.audit:
        from ocr_flops.cli.audit import audit_model

        return audit_model(options, run)
    stages = tuple(stage for stage in STAGES if stage in chosen("--stage", options.stage, STAGES)) if options.stage else run.stages
    levels = chosen("--level", options.level, verify.LEVELS)
    what = chosen("--what", options.what, verify.WHAT)
    narrowed = any(
        (options.quick, options.kind, options.level, options.what, options.stage, options.module, options.overrides, chosen_source)
    )
    if options.record and narrowed:
        raise SpecError("--record: keeps the default set as evidence; leave out what narrows it")
    cases = _cases(options, run)
    for case in cases:
        verify.asked(run.model, case, options.device, stages, source)  # what cannot be run is said before anything runs
    with Progress() as progress:
        frame, ran = _compared(options, run, source, cases, stages, levels, what, progress)
    if options.record:
        summary.record(frame, ran)
    different = int((frame["difference"] != 0).sum())
    if options.format == "json":
        versions = {name: ran[name] for name in ("torch", "transformers", "device", "weights", "label")}
        text = json.dumps({"compared": frame.height, "differences": different, "versions": versions, "rows": frame.to_dicts()})
    else:
        text = frame.write_csv() if options.format == "csv" else summary.report(frame)
    write(text, options, "verify")
    return 1 if different else 0


def _cases(options: argparse.Namespace, run: RunSpec) -> list[Case]:
    """The default set, or the one point chosen; only kinds of run that measure what is wanted."""
    from ocr_flops.evidence import verify

    point = [text for text in options.overrides if text.partition("=")[0].split(".")[0] not in OF_THE_MODEL]
    if point and options.quick:
        raise SpecError(f"--quick: thins out the default set, which {point[0]} replaces by one point; leave out one of them")
    if options.decode_steps < 1:
        raise SpecError(f"--decode-steps: {options.decode_steps} is not a whole number of at least 1")
    wanted = set(chosen("--what", options.what, verify.WHAT))
    kinds = [kind for kind, measures in verify.MEASURES.items() if wanted & measures and options.kind in (None, kind)]
    if not kinds:
        raise SpecError(f"--what: {', '.join(sorted(wanted))} cannot be had from --kind {options.kind}; leave out --kind")
    cases = verify.point_cases(run, kinds, options.decode_steps) if point else verify.suite(options.quick, run.engine.name)
    return [case for case in cases if case.kind in kinds]


def _compared(
    options: argparse.Namespace,
    run: RunSpec,
    source: ModelSource,
    cases: list[Case],
    stages: tuple[str, ...],
    levels: tuple[str, ...],
    what: tuple[str, ...],
    progress: Callable[[str], None],
) -> tuple[pl.DataFrame, dict]:
    """Every number compared, with the conditions of its point before it, and what ran."""
    import polars as pl

    from ocr_flops.evidence import verify
    from ocr_flops.evidence.verify import summary

    frames = []
    runs = verify.run(run.model, cases, device=options.device, stages=stages, python=options.python, source=source, progress=progress)
    for _, message in runs:
        found = verify.differences(run.model, message, levels, what)
        same = [pl.lit(value).alias(name) for name, value in summary.conditions(message).items()]
        frames.append(found.select(*same, pl.all()))
    frame = pl.concat(frames)
    known = tuple(frame["module"].unique(maintain_order=True))
    if options.module:
        frame = frame.filter(pl.col("module").is_in(chosen("--module", options.module, known)))
    if frame.is_empty():
        raise SpecError("verify: nothing is compared by these options; choose another --level or --what")
    return frame, message["ran"]
