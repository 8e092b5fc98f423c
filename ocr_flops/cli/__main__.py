"""`python -m ocr_flops.cli` is the command `ocr-flops`."""

import sys

from ocr_flops.cli import main

sys.exit(main())
