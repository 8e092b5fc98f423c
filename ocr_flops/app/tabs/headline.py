"""The headline figures above the tabs."""

from html import escape

import marimo as mo

from ocr_flops.app.setting import Setting
from ocr_flops.app.views import Results
from ocr_flops.evidence.verify.summary import describe_compared, find_compared
from ocr_flops.reports.estimate_settings import name_kernels
from ocr_flops.reports.headline import Card, headline_cards
from ocr_flops.reports.html import cards_html
from ocr_flops.timing.estimate import Estimate
from ocr_flops.units import name_attention

CARDS = 6
TOOLTIP = "tabindex=0 data-tooltip"  # what marimo shows, and the page's script for who has no pointer


def headline(results: Results, page: str = "") -> mo.Html:
    """Six figures as cards, the rest in a line, and what times rest on.

    Args:
        results: a setting that can be computed.
        page: where the page's size comes from, in words; "" for the controls.
    """
    estimate = results.main
    found = headline_cards(estimate, results.main_timing, results.hardware)
    rest = [
        *found[CARDS:],
        *_page(results.setting, page),
        _attention(estimate),
        _checked(estimate),
    ]
    cards, details = cards_html(found[:CARDS], "figures", TOOLTIP), cards_html(rest, "details", TOOLTIP)
    if (timing := results.main_timing) is None:
        return mo.Html(f"{cards}{details}")
    basis = f"<summary>Expected times rest on: {escape(timing.short_basis)}</summary>{escape(results.time_basis)}"
    return mo.Html(f'{cards}{details}<details class="basis">{basis}</details>')


def _attention(estimate: Estimate) -> Card:
    """The mode that the figures are of."""
    mode = estimate.config.attention
    explanation = f"What attends: {name_kernels(estimate.config.model, mode)}."
    return Card("attention", name_attention(mode.name), "of these figures", explanation)


def _page(setting: Setting, page: str) -> list[Card]:
    return [Card("page", f"{setting.width_px:,} × {setting.height_px:,} px", page, "Only its size is read.")] if page else []


def _checked(estimate: Estimate) -> Card:
    """What of exactly this setting was compared with the real model."""
    config = estimate.config
    found, words = find_compared(config), describe_compared(config, estimate.chosen_stages)
    if found is None:
        short = "learned from traces" if config.model.learned else "not compared"
        return Card("evidence", short, "", f"This setting was {words}. What was compared: see Method.")
    equal = found.verdict if found.different else "all equal the real model"
    return Card("checked", f"{found.numbers:,} numbers", equal, f"This setting: {words}. {found.basis}. See Method.")
