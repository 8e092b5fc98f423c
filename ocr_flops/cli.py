"""The command `ocr-flops`: app, estimate and verify."""
from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocr_flops import __version__
from ocr_flops.specs import SpecError

if TYPE_CHECKING:

    from ocr_flops.config import Run
    from ocr_flops.estimates import Estimate
    from ocr_flops.timing import Timing

PREFIXES = {-3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P", 6: "E"}
FORMATS = ("table", "json", "csv")
OVERRIDES = "Hydra overrides, for example: workload=gundam workload.columns=2 workload.rows=3 attention=eager engine=remote_code dtype=fp16"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code. A wrong value is one line on stderr and exit code 2."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except SpecError as problem:
        print(f"ocr-flops {options.command}: {problem}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `ocr-flops estimate | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ocr-flops", description="Exact compute cost of the DeepSeek-OCR vision-language model.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    app = commands.add_parser("app", help="open the what-if app in a browser")
    app.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    app.add_argument("--port", type=int, default=2718, help="port to listen on (default %(default)s)")
    app.add_argument("--headless", action="store_true", help="do not open a browser")
    app.set_defaults(run=_app)

    estimate = commands.add_parser("estimate", help="cost of one workload, by stage and module", epilog=OVERRIDES)
    estimate.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
    _output(estimate)
    estimate.set_defaults(run=_estimate)

    verify = commands.add_parser("verify", help="analytic numbers against the real model's; exits 1 on any difference")
    verify.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="model=... and model.towers.*=..., or stages=[vision]")
    verify.add_argument("--quick", action="store_true", help="a handful of points instead of all grids and modes")
    verify.add_argument("--kind", choices=("count", "trace"), help="only FLOPs as torch counts them, or only traces; both by default")
    verify.add_argument("--device", default="meta", choices=("auto", "meta", "cpu", "cuda"), help="where the real model runs (default %(default)s)")
    verify.add_argument("--record", action="store_true", help="keep the summary as the evidence that the app shows")
    _output(verify)
    verify.set_defaults(run=_verify)
    return parser


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="table", help="(default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write into this folder instead of to the screen")


def _app(options: argparse.Namespace) -> int:
    from ocr_flops.config import notebook_dir

    command = [sys.executable, "-m", "marimo", "run", str(notebook_dir() / "what_if.py"), "--host", options.host, "--port", str(options.port)]
    os.execv(sys.executable, [*command, *(["--headless"] if options.headless else [])])


def _estimate(options: argparse.Namespace) -> int:
    from ocr_flops.config import load_run
    from ocr_flops.estimates import estimate

    run = load_run(options.overrides)
    result = estimate(run.model, run.workload, run.attention, engine=run.engine, dtype=run.dtype, cache=run.cache,
                      prefill_logits=run.prefill_logits, stages=run.stages)
    timing = None if run.hardware is None else result.on(run.hardware)
    if options.format == "json":
        text = json.dumps(as_json(run, result, timing), indent=1)
    elif options.format == "csv":
        text = (timing or result).modules.write_csv()
    else:
        text = _tables(run, result, timing)
    _write(text, options, "estimate")
    return 0


def as_json(run: Run, result: Estimate, timing: Timing | None) -> dict[str, Any]:
    """An estimate as one object: what was asked, the resolved workload, the footprint, the rows of stages and modules, and times."""
    workload = run.workload
    names = ("mode", "image_width_px", "image_height_px", "global_px", "tile_px", "columns", "rows", "tiles", "image_tokens", "prompt_tokens",
             "context_tokens", "output_tokens", "batch_size")
    return {
        "model": run.model.name, "engine": run.engine.name, "attention": run.attention.name, "dtype": run.dtype, "cache": run.cache,
        "prefill_logits": run.prefill_logits, "workload": {name: getattr(workload, name) for name in names},
        "footprint": result.footprint._asdict(), "stages": (timing or result).stages.to_dicts(),
        "modules": (timing or result).modules.to_dicts(), **(_times(timing) if timing else {}),
    }


def _times(timing: Timing) -> dict[str, Any]:
    """The headline figures of a run on a device."""
    return {
        "hardware": timing.hardware.name, "fits": bool(timing.fits), "ttft_seconds": timing.ttft_seconds, "tpot_seconds": timing.tpot_seconds,
        "last_tpot_seconds": timing.last_tpot_seconds, "bound_ttft_seconds": timing.bound_ttft_seconds,
        "tokens_per_second": timing.tokens_per_second, "pages_per_second": timing.pages_per_second,
    }


def _tables(run: Run, result: Estimate, timing: Timing | None) -> str:
    """Stages and modules for a terminal, in readable units."""
    import polars as pl

    workload, footprint = run.workload, result.footprint
    grid = f"{workload.columns} x {workload.rows} tiles" if workload.tiles else "no tiles"
    head = [
        f"{run.model.label}, {run.engine.label}, attention {run.attention.name}, {run.dtype}, cache {run.cache}, logits {run.prefill_logits}",
        f"{workload.mode}, {grid}, {workload.image_tokens} image + {workload.prompt_tokens} prompt tokens, {workload.output_tokens} output tokens, "
        f"batch {workload.batch_size}",
        f"memory: weights {_si(footprint.weight_bytes)}B + KV cache {_si(footprint.kv_cache_bytes)}B + activations "
        f"{_si(footprint.peak_activation_bytes)}B = {_si(footprint.total_bytes)}B",
    ]
    if timing is not None:
        times = _times(timing)
        head.append(f"{timing.hardware.label}, roofline: TTFT {_si(times['ttft_seconds'])}s (no implementation below "
                    f"{_si(times['bound_ttft_seconds'])}s), {_per_token(times)}{_si(times['pages_per_second'])}pages/s, "
                    f"{'fits' if times['fits'] else 'does NOT fit'} in {_si(timing.hardware.memory_bytes)}B")
    seconds = ["roofline_seconds", "bound_seconds"] if timing else []
    shown = ["tensor_flops", "vector_flops", "torch_flops", "io_bytes", "peak_activation_bytes", "weight_bytes", "kv_cache_bytes", *seconds]
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=400, fmt_str_lengths=40, tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True,
                   tbl_cell_alignment="RIGHT", tbl_formatting="UTF8_FULL_CONDENSED"):
        tables = [str(frame.select(*keys, *(pl.col(name).map_elements(_si, pl.String) for name in shown), pl.col("arithmetic_intensity").round(2),
                                   *(["binding_ceiling"] if timing else [])))
                  for frame, keys in (((timing or result).stages, ["stage"]), ((timing or result).modules, ["stage", "module"]))]
    return "\n".join([*head, *tables])


def _per_token(times: dict[str, Any]) -> str:
    tpot = times["tpot_seconds"]
    return "" if tpot is None else f"TPOT {_si(tpot)}s, {_si(times['tokens_per_second'])}tokens/s, "


def _si(value: float) -> str:
    """A number with an SI prefix and four significant digits."""
    power = 0 if not value else max(-3, min(6, math.floor(math.log10(abs(value)) / 3)))
    return f"{value / 1000**power:.4g} {PREFIXES[power]}"


def _verify(options: argparse.Namespace) -> int:
    import polars as pl

    from ocr_flops import verify
    from ocr_flops.config import load_run

    run = load_run(options.overrides)
    cases = [case for case in verify.suite(options.quick) if options.kind in (None, case.kind)]
    on_terminal = sys.stderr.isatty()

    def progress(text: str) -> None:
        if on_terminal:
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)

    frames = []
    for case, message in verify.run(run.model, cases, device=options.device, stages=run.stages, progress=progress):
        compared = verify.differences(run.model, message)
        point = message["workload"]
        conditions = {"kind": case.kind, "attention": case.attention, "prefill_logits": case.prefill_logits, "dtype": case.dtype,
                      **{name: point[name] for name in ("global_px", "tile_px", "columns", "rows", "batch_size")}}
        frames.append(compared.select(*(pl.lit(value).alias(name) for name, value in conditions.items()), pl.all()))
    progress("\n" if on_terminal else "")
    frame = pl.concat(frames)
    if options.record:
        verify.record(frame, message["ran"])
    wrong = frame.filter(pl.col("difference") != 0)
    if options.format == "json":
        text = json.dumps({"compared": frame.height, "differences": wrong.height, "rows": frame.to_dicts()})
    else:
        text = frame.write_csv() if options.format == "csv" else verify.report(frame)
    _write(text, options, "verify")
    return 1 if wrong.height else 0


def _write(text: str, options: argparse.Namespace, name: str) -> None:
    """Prints, or writes a file whole: it appears under its name only when it is complete."""
    if options.out is None:
        print(text)
        return
    path = options.out / f"{name}.{'txt' if options.format == 'table' else options.format}"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + f".{os.getpid()}.part")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as problem:
        raise SpecError(f"--out: cannot write {path}: {problem.strerror}; choose a folder you can write to") from None
    print(path)


if __name__ == "__main__":
    sys.exit(main())
