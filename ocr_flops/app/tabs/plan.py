"""The tab Plan: what the pages cost on this device and on all others, and which meet the targets."""

import marimo as mo

from ocr_flops.app.planned import plan_pages
from ocr_flops.app.tabs.elements import grid, plain_table, problem
from ocr_flops.app.views import Results
from ocr_flops.errors import SpecError


def plan(results: Results, targets: mo.ui.dictionary) -> tuple[mo.Html, mo.Html | None]:
    """What stands above the charts, the answer in sentences or why there is none, and below them a row a device.

    Args:
        results: of a setting.
        targets: of `target_controls`.
    """
    try:
        words, devices = plan_pages(results)
        answer, table = mo.md(words), plain_table(devices, page_size=50)
    except SpecError as error:
        answer, table = problem("This target has no answer.", f"{error}."), None
    return mo.vstack([grid(*targets.elements.values()), answer]), table
