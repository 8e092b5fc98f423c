"""The tab Spot check: the real model's FLOPs, traffic and peaks beside the analytic ones."""

import marimo as mo

from ocr_flops.app import runs, spot_checks
from ocr_flops.app.spot_checks import SCOPES, STORE
from ocr_flops.app.tabs.elements import plain_table, row, unless
from ocr_flops.app.views import Results
from ocr_flops.evidence.calibration.selection import attention_name
from ocr_flops.measure.plan import DECODE_STEPS
from ocr_flops.reports import tables

ABOUT = """
Builds the real model in a child process, counts its FLOPs with PyTorch's own counter and traces the bytes that every operator moves and
keeps alive, for the setting in the sidebar.

What runs: **{engine}, {attention} attention, {dtype}, random weights, {device}**. transformers' class is given DeepSeek-OCR's dimensions,
with which it is the same architecture; no weights are downloaded. At most {steps} decode steps are run and compared as such. About 10 s for
a point on `meta`. One run at a time on a server; others wait their turn, and everything else stays live meanwhile.
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
        parts = [
            mo.callout(spot_checks.verdict(measured), kind="danger" if spot_checks.count_differences(measured) else "success"),
            mo.md("Measured on this server, by anyone; the latest first."),
            plain_table(tables.measured_table(measured), page_size=25),
        ]
    config = results.main.config
    attention = attention_name(config.attention)
    ran = {
        "engine": config.model.under(config.engine),
        "attention": attention,
        "dtype": config.dtype,
        "device": inputs.elements["device"].selected_key,
    }
    about, lacking = ABOUT.format(steps=DECODE_STEPS, **ran), runs.missing(runs.request_check, results, SCOPES[0], "auto")
    if (output_tokens := results.setting.output_tokens) > DECODE_STEPS:
        about += f" The charts show {output_tokens:,} output tokens, so decode's counts stand in the table below alone."
    return mo.vstack([mo.md(about), row(*inputs.elements.values(), unless(lacking, run), gap=2), *parts])
