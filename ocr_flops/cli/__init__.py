"""The command `ocr-flops`: its arguments; `commands.py` says what each does."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ocr_flops import __version__
from ocr_flops.cli import calibrate as calibrate_command
from ocr_flops.cli import commands
from ocr_flops.cli import measure as measure_command
from ocr_flops.cli import report as report_command
from ocr_flops.cli import sweep as sweep_command
from ocr_flops.cli import verify as verify_command
from ocr_flops.errors import SpecError

FORMATS = ("table", "json", "csv")
OVERRIDES = "Hydra overrides, for example: workload=gundam workload.columns=2 workload.rows=3 attention=eager engine=remote_code dtype=fp16"


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code. A wrong value is one line on stderr and exit code 2."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and "overrides" in options and all("=" in one and not one.startswith("-") for one in rest):
        options.overrides = [*options.overrides, *rest]  # argparse gives up on those that follow an option
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
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
    actions = parser.add_subparsers(dest="command", required=True)

    app = actions.add_parser("app", help="open the what-if app in a browser")
    app.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s); beyond loopback with a token")
    app.add_argument("--port", type=int, default=2718, help="port to listen on (default %(default)s); 0 is any free one")
    app.add_argument("--token", help="what visitors must show; made and printed where it is needed and not given")
    app.add_argument("--max-upload-mb", type=float, default=50, metavar="MB", help="largest upload (default %(default)s)")
    app.add_argument("--headless", action="store_true", help="do not open a browser")
    app.set_defaults(run=commands.app)

    estimate = actions.add_parser("estimate", help="cost of one workload, by stage and module", epilog=OVERRIDES)
    estimate.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
    _output(estimate)
    estimate.set_defaults(run=commands.estimate_workload)

    plan = actions.add_parser(
        "plan", help="what a target requires, what fits, which GPUs do and what a thousand pages cost", epilog=OVERRIDES
    )
    plan.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for estimate; hardware=... asks about one device")
    plan.add_argument("--ttft", type=float, metavar="SECONDS", help="target for the time to first token")
    plan.add_argument("--tpot", type=float, metavar="SECONDS", help="target for the mean time per output token")
    plan.add_argument("--memory-gb", type=float, metavar="GB", help="memory that batch, context and grid must fit (default: the device's)")
    plan.add_argument("--price", type=float, metavar="PRICE", help="of one device hour, in any currency")
    _output(plan)
    plan.set_defaults(run=commands.plan)

    sweep_command.add_sweep(actions)
    sweep_command.add_shapes(actions)

    report_command.add_report(actions, OVERRIDES)

    verify = actions.add_parser("verify", help="analytic numbers against the real model's; exits 1 on any difference")
    verify_command.add_arguments(verify)
    _output(verify)
    verify.set_defaults(run=verify_command.verify_model)

    measure = actions.add_parser("measure", help="time the real model for one workload, and keep a record of it", epilog=OVERRIDES)
    measure_command.add_arguments(measure)
    _output(measure)
    measure.set_defaults(run=measure_command.measure_model)

    calibrate = actions.add_parser(
        "calibrate", help="what a device reaches, learnt from its records; exits 1 where they do not tell", epilog=OVERRIDES
    )
    calibrate_command.add_arguments(calibrate)
    _output(calibrate)
    calibrate.set_defaults(run=calibrate_command.calibrate_device)
    return parser


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="table", help="(default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write into this folder instead of to the screen")
