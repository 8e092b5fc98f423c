"""The command `ocr-flops verify`: which points it runs, which numbers it compares, what it prints and how it exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Form, Out, Overrides, Python, known_names
from ocr_flops.errors import SpecError
from ocr_flops.spec.specs import CALL, STAGES
from ocr_flops.units import counted

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.evidence.verify import Case
    from ocr_flops.spec.run_spec import RunSpec

PLACE = ("kind", "attention", "level", "stage", "module", "layer", "column")  # of a number that was compared
NUMBERS = ("measured", "analytic", "difference", "largest_difference")  # printed in full: they are compared as integers
MODEL_KEYS = ("model", "stages", "engine")  # overrides that say what runs, not at which point


def verify_model(
    overrides: Overrides = None,
    quick: Annotated[bool, typer.Option("--quick", help="A handful of points instead of all grids and modes.")] = False,
    kind: Annotated[
        Literal["count", "trace"] | None, typer.Option(help="Only FLOPs as torch counts them, or only traces; both by default.")
    ] = None,
    level: Annotated[str, typer.Option(metavar="LEVEL,...", help="Of layer, module, stage, total (end to end); all by default.")] = "",
    what: Annotated[
        str,
        typer.Option(
            metavar="WHAT,...",
            help="Of flops, operators, traffic, peak, parameters, kv; all by default. time alone: expected times against published ones.",
        ),
    ] = "",
    stage: Annotated[str, typer.Option(metavar="STAGE,...", help="Of vision, prefill, decode, call (vision and prefill in one).")] = "",
    module: Annotated[str, typer.Option(metavar="MODULE,...", help="Only these, as in sam.mlp,clip.mlp.")] = "",
    device: Annotated[Literal["auto", "meta", "cpu", "cuda"], typer.Option(help="Where the real model runs.")] = "meta",
    python: Python = None,
    decode_steps: Annotated[int, typer.Option(metavar="STEPS", help="Decode steps run at most at one point.")] = 3,
    audit: Annotated[
        bool,
        typer.Option("--audit", help="Run torch operators here and show which of their FLOPs its counter sees, for the workload given."),
    ] = False,
    record: Annotated[bool, typer.Option("--record", help="Keep the summary as the evidence that the app shows.")] = False,
    form: Form = "table",
    out: Out = None,
) -> int:
    """Compare the analytic numbers with the real model's; exits 1 on any difference. With --what time, published figures: always 0.

    model=... and stages=[...] choose what runs, engine=remote_code snapshot=DIR trust_remote_code=true the published code,
    checkpoint=DIR local weights; any other override runs that one point.
    """
    import polars as pl

    from ocr_flops.evidence import verify
    from ocr_flops.evidence.verify import summary
    from ocr_flops.measure.client import interpreter
    from ocr_flops.measure.plan import ModelSource, split_source
    from ocr_flops.spec.run_spec import load_run

    narrowing = {"quick": quick, "kind": kind, "level": level, "what": what, "stage": stage, "module": module}
    if what == "time":
        _refuse(narrowing | {"what": "", "audit": audit, "record": record}, "--what time")
        return _compare_published(overrides or (), form, out)
    rest, source_keys = split_source(overrides or ())
    run = load_run(rest)
    run.engine.check_runs()
    if run.model.learned:
        others = narrowing | {"quick": False, "stage": "", "audit": audit, "record": record}
        _refuse(others, f"verifying {run.model.name}, which was learned from traces")
        return _verify_learned(run, rest, quick, stage, python, form, out)
    source = ModelSource(run.engine.name, **source_keys)
    interpreter_path = interpreter(python, run.engine.name)
    if audit:
        _refuse(narrowing, "an audit")
        return _audit_counter(run, interpreter_path, record, form, out)
    chosen_stages = known_names("--stage", stage, (*STAGES, CALL)) if stage else run.stages
    if not stage and kind != "count" and {"vision", "prefill"} <= {*chosen_stages}:
        chosen_stages = (*chosen_stages, CALL)  # which shows what is alive together
    stages = tuple(name for name in (*STAGES, CALL) if name in chosen_stages)
    levels, measures = known_names("--level", level, verify.LEVELS), known_names("--what", what, verify.WHAT)
    narrowed = [text for text in rest if not text.startswith("engine=")]
    if record and any((*narrowing.values(), narrowed, source.checkpoint)):
        raise SpecError("--record: keeps the default set as evidence; leave out what narrows it")
    cases = _cases(run, rest, quick, kind, measures, decode_steps)
    for case in cases:
        case.request(run.model, device, stages, source)  # what cannot be run is said before anything runs
    frames = []
    with console.show_progress() as progress:
        runs = verify.run_cases(run.model, cases, device=device, stages=stages, python=interpreter_path, source=source, progress=progress)
        for _, result in runs:
            frames.append(summary.add_point(verify.compare_numbers(run.model, result, levels, measures), result))
    frame, ran = pl.concat(frames), result.ran
    if kind:
        frame = frame.filter(kind=kind)
    if module:
        known = tuple(frame["module"].unique(maintain_order=True))
        frame = frame.filter(pl.col("module").is_in(known_names("--module", module, known)))
    if frame.is_empty():
        raise SpecError("verify: nothing is compared by these options; choose another --level or --what")
    if record:
        summary.write_verification(frame, ran, run.model, source.snapshot)
    versions = {name: ran[name] for name in ("torch", "transformers", "device", "weights", "label")}
    points = summary.count_points(frame)
    return _write_compared(frame, versions, points, form, out, summary.shown_frame(frame), summary.describe_differences(frame))


def _refuse(options: Mapping[str, object], what: str) -> None:
    """Raises SpecError for the first option given that has no part in what is done."""
    for name in (name for name, value in options.items() if value):
        raise SpecError(f"--{name}: has no part in {what}; leave it out")


def _write_compared(
    frame: pl.DataFrame, versions: Any, points: int, form: str, out: Path | None, shown: pl.DataFrame, differences: Sequence[str]
) -> int:
    """Prints or writes what was compared; 1 on any difference, else 0."""
    import polars as pl

    different = int((frame["difference"] != 0).sum())
    data = {"compared": frame.height, "differences": different, "versions": versions}
    whole = shown.with_columns(pl.col(name).map_elements("{:,}".format, pl.String) for name in NUMBERS if name in shown.columns)
    places = [name for name in PLACE if name in shown.columns]
    keys = [name for name in places if shown[name].n_unique() > 1]
    same = [f"{name} {shown[name][0]}" for name in places if name not in keys]  # said once above the table
    if "kind" in keys and shown.select("kind", "column").n_unique() == shown["column"].n_unique():
        keys.remove("kind")
        same.append("torch_flops as torch counts them, all other columns from a trace of every operator")
    whole = whole.drop(set(places) - {*keys})
    words = {"same": ", ".join(same), "shown": whole, "keys": keys, "lines": differences, "points": counted(points, "point")}
    console.write_result("verify", form, out, frame, lambda: data | {"rows": frame.to_dicts()}, **data | words)
    return 1 if different else 0


def _verify_learned(
    run: RunSpec, overrides: Sequence[str], quick: bool, stage: str, python: str | None, form: str, out: Path | None
) -> int:
    """Fresh traces of a learned model's class against its program; 1 on any difference."""
    import polars as pl

    from ocr_flops.evidence.verify import learned

    is_point = any(text.startswith("workload") for text in overrides)
    points = (
        [run.workload.for_page_rule(run.model.learned.page_rule)] if is_point else learned.random_workloads(run.model, 2 if quick else 6)
    )
    chosen = [text.partition("=")[2] for text in overrides if text.startswith("attention=")]
    stages = known_names("--stage", stage, (*STAGES, CALL))
    with console.show_progress() as progress:
        frame = learned.verify_learned(run.model, points, chosen, stages, python, progress)
    shown = frame.drop("image_width_px", "image_height_px", "prompt_tokens")
    if len(points) > 1:
        shown = (
            frame.filter(module="total")
            .group_by("attention", "stage", "column", maintain_order=True)
            .agg(pl.len().alias("points"), pl.col("difference").abs().max().alias("largest_difference"))
        )
    wrong = [f"differs: {row}" for row in frame.filter(pl.col("difference") != 0).head(20).iter_rows(named=True)]
    return _write_compared(frame, learned.describe_versions(run.model), len(points), form, out, shown, wrong)


def _cases(
    run: RunSpec, overrides: Sequence[str], quick: bool, chosen: str | None, measures: Sequence[str], decode_steps: int
) -> list[Case]:
    """The default set, or the one point given; only kinds of run that measure what is wanted."""
    from ocr_flops.evidence import verify

    point = [text for text in overrides if text.partition("=")[0].split(".")[0] not in MODEL_KEYS]
    if point and quick:
        raise SpecError(f"--quick: thins out the default set, which {point[0]} replaces by one point; leave out one of them")
    if decode_steps < 1:
        raise SpecError(f"--decode-steps: {decode_steps} is not a whole number of at least 1")
    kind = chosen or "trace"
    if not set(measures) & verify.MEASURES[kind]:
        raise SpecError(f"--what: {', '.join(sorted(measures))} cannot be had from --kind {kind}; leave out --kind")
    return [verify.point_case(run, kind, decode_steps)] if point else verify.default_cases(quick, run.engine.name, kind)


def _compare_published(overrides: Sequence[str], form: str, out: Path | None) -> int:
    """Expected times beside published ones, with further overrides for every run; 0 whatever they are, for they are evidence."""
    from ocr_flops.evidence.published import points

    frame = points.compare_points(overrides)
    summary = points.summarise_points(frame)
    data = {"summary": summary, "points": frame.to_dicts()}
    console.write_result("published", form, out, frame, data, points=data["points"], shown=points.shown_frame(frame), **summary)
    return 0


def _audit_counter(run: RunSpec, python: str, record: bool, form: str, out: Path | None) -> int:
    """Runs the demonstrations here and weighs them by the workload given; 1 where one failed to run, 0 otherwise."""
    import polars as pl
    from polars import selectors

    from ocr_flops.evidence.verify import counter_audit

    message = counter_audit.audit_counter(python)
    if record:
        counter_audit.write_audit(message)
    estimated = counter_audit.estimate_audited(run.model, run.workload, run.stages, dtype=run.dtype, prefill_logits=run.prefill_logits)
    frame, hidden = counter_audit.audit_frame(message, estimated), counter_audit.hidden_frame(message, estimated)
    flops = pl.col("tensor_flops", "vector_flops", "counted_flops").map_elements("{:,}".format, pl.String)
    shares = (selectors.ends_with("_share") * 100).round(2).cast(pl.String).name.replace("_share$", " %")
    values = {
        "words": counter_audit.describe_audit(message, estimated),
        "shown": frame.rename({"share": "all_share"}).select("call", "device", flops, "verdict", shares),
        "unseen": frame.filter(pl.col("verdict").is_in(["partly", "missed", "not here"])).to_dicts(),
    }
    data = {"ran": message["ran"], "date": message["date"], "cases": frame.to_dicts(), "hidden": hidden.to_dicts()}
    console.write_result("audit", form, out, frame, data, **values)
    return 1 if counter_audit.list_failures(message) else 0
