"""`python -m ocr_flops` is the command `ocr-flops`."""

import sys

from ocr_flops.cli import main

sys.exit(main())
