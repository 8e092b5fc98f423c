"""The tab Compare: pinned settings beside the current one."""

from collections.abc import Callable
from html import escape
from urllib.parse import urlencode

import marimo as mo

from ocr_flops import charts
from ocr_flops.app import comparison, links
from ocr_flops.app.links import Link, Pins
from ocr_flops.app.session import Session
from ocr_flops.app.setting import Setting
from ocr_flops.app.tabs.elements import button, plain_table, problem, row
from ocr_flops.app.views import Results

HINT = "All others are compared with a pin called baseline, else with the first. Without a name it is called by what it changes of that."


class PinControls:
    """The controls of the pins there are: each one's name and a button that removes it, and what pins the setting on the page.

    Args:
        pins: by name, oldest first.
        set_pins: takes those that follow.
        page: whose setting is pinned.
    """

    def __init__(self, pins: Pins, set_pins: Callable[[Pins], None], page: Session):
        self.pins, self._set, self._page = pins, set_pins, page
        self.new_name = mo.ui.text(placeholder="name of the pin")
        self.add = button("Pin the current setting", self._add)
        self.names = [mo.ui.text(value=name, label="named", on_change=lambda new, name=name: self._rename(name, new)) for name, _ in pins]
        self.removals = [button("remove", lambda name=name: self._remove(name), kind="neutral") for name, _ in pins]

    def _add(self) -> None:
        if self._page.results is not None and len(self.pins) < links.MAX_PINS:
            setting = self._page.results.setting
            name = self.new_name.value.strip() or comparison.short_name(setting, comparison.find_base(setting, self.pins)[1])
            self._set((*self.pins, (links.pin_name(name, [comparison.NOW, *dict(self.pins)]), setting)))

    def _rename(self, old: str, new: str) -> None:
        name = links.pin_name(new, [comparison.NOW, *dict(self.pins)], instead_of=old)
        self._set(tuple((name if known == old else known, setting) for known, setting in self.pins))

    def _remove(self, old: str) -> None:
        self._set(tuple(pin for pin in self.pins if pin[0] != old))


def compared_charts(results: Results, pins: Pins) -> list[charts.Chart]:
    """The current setting and the pins beside each other."""
    return [charts.comparison(comparison.compare_pins(results.model, results.setting, pins)[0])]


def provenance_of(results: Results, pins: Pins) -> str:
    """What the chart says of itself where it is taken away."""
    return comparison.provenance_of(comparison.compare_pins(results.model, results.setting, pins)[0])


def compare(results: Results, pins: PinControls) -> mo.Html:
    """The list of pins with their controls, and the table below the chart.

    Args:
        results: of the current setting.
        pins: what it is compared with.
    """
    found, problems = comparison.compare_pins(results.model, results.setting, pins.pins)
    listed = [
        row(name, removal, mo.Html(_described(kept, results.setting, pins.pins)))
        for (_, kept), name, removal in zip(pins.pins, pins.names, pins.removals, strict=True)
    ]
    full = mo.md(f"{links.MAX_PINS} settings are pinned; remove one to pin another.")
    return mo.vstack(
        [
            row(pins.new_name, pins.add, mo.Html(f"<small>{HINT}</small>")) if len(pins.pins) < links.MAX_PINS else full,
            *([problem("Not everything is compared as it was set.", *problems, kind="warn")] if problems else []),
            *([mo.md("**Pinned**, and what the controls now change of it")] if listed else []),
            *listed,
            *([plain_table(comparison.comparison_table(found), pagination=False)] if len(found) > 1 else []),
        ]
    )


def _described(kept: Setting, setting: Setting, pins: Pins) -> str:
    link = escape(urlencode(links.write(Link(kept, "Compare", pins))))
    return f'<span class="pin">{escape(comparison.change_words(setting, kept))} · <a href="?{link}">show it</a></span>'
