"""The tab Spot check: the real model's FLOPs beside the analytic ones."""

from __future__ import annotations

import marimo as mo

from ocr_flops.app import spot_checks
from ocr_flops.app.spot_checks import STORE
from ocr_flops.app.tabs.elements import plain_table, row
from ocr_flops.app.views import Results
from ocr_flops.measure.plan import DECODE_STEPS
from ocr_flops.reports import tables

ABOUT = """
Builds the real model in a child process and counts its FLOPs with PyTorch's own counter, for the setting in the sidebar.

What runs: **transformers, UnlimitedOcr class, random weights, eager, {device}**. It is given DeepSeek-OCR's dimensions, with which it is
the same architecture; no weights are downloaded. At most {steps} decode steps are run and compared as such. About 8 s for a point on
`meta`. One run at a time on a server; others wait their turn, and everything else stays live meanwhile.
"""


def spot_check(results: Results, inputs: mo.ui.dictionary, run: mo.ui.button) -> mo.Html:
    """What runs, the controls that start it, and what was measured so far.

    Args:
        results: of a setting.
        inputs: of `spot_check_controls`.
        run: the button that starts it.
    """
    measured = STORE.table()
    parts = [mo.md("Nothing has been measured on this server yet.")]
    if len(measured):
        is_equal = not measured["difference"].abs().sum()
        parts = [
            mo.callout(spot_checks.verdict(measured), kind="success" if is_equal else "danger"),
            mo.md("Measured on this server, by anyone; the latest first."),
            plain_table(tables.measured_table(measured), page_size=25),
        ]
    about = ABOUT.format(device=inputs.elements["device"].selected_key, steps=DECODE_STEPS)
    if (output_tokens := results.setting.output_tokens) > DECODE_STEPS:
        about += f" The charts show {output_tokens:,} output tokens, so decode's counts stand in the table below alone."
    return mo.vstack([mo.md(about), row(*inputs.elements.values(), run, gap=2), *parts])
