"""The command `ocr-flops`, as which `python -m ocr_flops` runs too."""

import os
import signal
import sys


def main() -> int:
    """Runs the command line of this process; until its modules are loaded Ctrl-C ends it at once and without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ocr_flops.cli import INTERRUPTED, main

    if (code := main()) == INTERRUPTED:
        os._exit(code)  # Python would take seconds to put away what an app has loaded
    return code


if __name__ == "__main__":
    sys.exit(main())
