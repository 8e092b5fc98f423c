"""The command `ocr-flops`, as which `python -m ocr_flops` runs too."""

import signal
import sys


def main() -> int:
    """Runs the command line of this process; until its modules are loaded Ctrl-C ends it at once and without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ocr_flops.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
