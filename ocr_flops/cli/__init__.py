"""The command `ocr-flops`: its subcommands, of which `app` is here, and what becomes of their errors."""

import os
import signal
import socket
import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from ocr_flops import __version__
from ocr_flops.cli import calibrate, corpus, estimate, learn, measure, models, serving, sweep, verify
from ocr_flops.errors import SpecError
from ocr_flops.files import ADVICE
from ocr_flops.measure import lessons  # it learns models that are used for the first time
from ocr_flops.spec.overrides import KEYS
from ocr_flops.spec.reading import OWN_CONFIGS
from ocr_flops.spec.run_spec import WorkloadKeys
from ocr_flops.units import escape_controls


def serve_app(
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 is any free one.")] = 2718,
    token: Annotated[str | None, typer.Option(help="What visitors must show; made and printed where it is needed and not given.")] = None,
    max_upload_mb: Annotated[float, typer.Option(metavar="MB", help="Largest upload.")] = 50,
    no_runs: Annotated[bool, typer.Option("--no-runs", help="Pages may not run the real model here.")] = False,
    headless: Annotated[bool, typer.Option("--headless", help="Do not open a browser.")] = False,
    snapshot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the published model, whose code pages may run as engine remote_code.")
    ] = None,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Trust that code: it runs with your rights.")] = False,
) -> int:
    """Open the what-if app in a browser."""
    from ocr_flops.app import runs, server

    if snapshot is not None:
        runs.offer_snapshot(snapshot, trust_remote_code)

    if no_runs:
        runs.refuse()
    where = server.serving(host, port, token, max_upload_mb)
    with server.listen(where) as listening:
        port = listening.getsockname()[1]
        links = server.links(where, port)
        print("\n".join((*links, "Ctrl-C ends it.")), flush=True)
        if not headless:
            threading.Thread(target=webbrowser.open, args=links[:1], daemon=True).start()  # may look for a browser for long
        server.serve(server.build(where, port), listening)
    return 0


PATIENCE_SECONDS, INTERRUPTED = 0.5, 130  # that a command has to end after Ctrl-C, and its exit code then
SHOW_CURSOR = "\x1b[?25h\n"  # which progress may have hidden
COMMANDS = {
    "The app": {"app": serve_app},
    "What a page costs": {
        "estimate": estimate.estimate_workload,
        "plan": estimate.plan_devices,
        "serving": serving.serve_workload,
        "corpus": corpus.plan_corpus,
        "sweep": sweep.run_sweep,
        "shapes": sweep.list_shapes,
        "report": estimate.write_report,
        "list": estimate.list_choices,
        "models": models.show_models,
        "compare": models.compare_models,
    },
    "How far to trust it": {
        "verify": verify.verify_model,
        "measure": measure.measure_model,
        "calibrate": calibrate.calibrate_device,
        "learn": learn.learn_model,
    },
}


class _Command(TyperCommand):
    """A command that says of an option that it lacks which key it may have been meant as."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except TyperException as problem:
            option = getattr(problem, "option_name", "") if hasattr(problem, "possibilities") else ""  # which is unknown
            key = option.lstrip("-").replace("-", "_")
            if key in KEYS or key in WorkloadKeys._fields:
                key = key if key in KEYS else f"workload.{key}"
                raise SpecError(f"{option}: no such option, but a key: write {key}=VALUE") from None
            raise


program = typer.Typer(
    name="ocr-flops",
    help="Exact compute cost of the DeepSeek-OCR vision-language model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _group, _commands in COMMANDS.items():
    for _name, _function in _commands.items():
        program.command(_name, cls=_Command, rich_help_panel=_group)(_function)


def _exit(code: int, **options: object) -> None:
    """Ends the process with the number that a command returned."""
    raise typer.Exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@program.callback(result_callback=_exit)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)] = False,
    configs: Annotated[
        str | None,
        typer.Option(
            "--config-dir",
            metavar="DIR",
            envvar=OWN_CONFIGS,
            help="Folder of configs of your own beside those that are shipped: DIR/hardware/my_gpu.yaml is then hardware=my_gpu.",
        ),
    ] = None,
) -> None:
    """Exact compute cost of the DeepSeek-OCR vision-language model."""
    if configs:
        for folder in configs.split(os.pathsep):
            if not Path(folder).is_dir():
                raise SpecError(f"--config-dir: there is no folder {folder}")
        os.environ[OWN_CONFIGS] = configs


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line, by default of this process, and returns the exit code: a wrong value is one line on stderr and 2."""
    if arguments is None and threading.current_thread() is threading.main_thread():
        _watch_interrupts()
    words = sys.argv[1:] if arguments is None else arguments
    command = next((word for word in words if any(word in group for group in COMMANDS.values())), "")
    try:
        try:
            program(words, prog_name="ocr-flops")
        finally:
            sys.stdout.flush()  # else a disk that is full is noticed after the end
    except SystemExit as stop:
        return stop.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except SpecError as problem:
        return _complain(command, str(problem), 2)
    except RecursionError:
        return _complain(command, "an override is nested too deep", 2)
    except BrokenPipeError:  # `ocr-flops estimate | head`
        _close_stdout()
        return 0
    except OSError as problem:
        if problem.errno not in ADVICE:
            raise
        _close_stdout()
        return _complain(command, f"cannot write the result: {problem.strerror}; {ADVICE[problem.errno]}", 2)


def _watch_interrupts() -> None:
    """Lets Ctrl-C stop a command as Python does, and ends it soon where a thread or a call that Python cannot interrupt goes on.

    What was begun is in files that appear when they are whole.
    """
    woken, wake = socket.socketpair()
    wake.setblocking(False)

    def end(held: socket.socket = wake) -> None:  # which must stay open
        while woken.recv(1) != bytes([signal.SIGINT]):
            pass
        time.sleep(PATIENCE_SECONDS)
        if sys.stderr.isatty():
            sys.__stderr__.write(SHOW_CURSOR)  # progress has put itself in the place of the other
        os._exit(INTERRUPTED)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(wake.fileno())
    threading.Thread(target=end, daemon=True).start()


def _complain(command: str, text: str, code: int) -> int:
    print(" ".join(("ocr-flops", command)).rstrip() + ":", " ".join(escape_controls(text).split()), file=sys.stderr)
    return code


def _close_stdout() -> None:
    """Lets what is still in the buffer go nowhere, so that the end of the process does not fail on it too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
