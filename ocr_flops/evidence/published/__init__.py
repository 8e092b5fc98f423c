"""What others measured and published, held against expected times; nothing is fitted to a single figure."""

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec


@cache
def read_accuracy() -> dict[str, Any]:
    """Accuracy of each mode as its authors publish it.

    `source`; `omnidocbench`: by mode its mean vision tokens and overall edit distances; `fox`: precision of two modes by text tokens.
    """
    return msgspec.yaml.decode(files(__package__).joinpath("accuracy.yaml").read_bytes())
