"""The spot check in the browser: a run, its queue, a cancelled one, and other sessions meanwhile."""

import re
import time

import pytest
from playwright.sync_api import expect

from tests.support.driving import RUN_MS, datasets, drawn, open_tab, opened, sidebar, until

pytestmark = pytest.mark.browser


def start(page, scope="current point"):
    open_tab(page, "Spot check")
    page.get_by_label("device").select_option(label="meta (exact, no GPU)")
    page.get_by_role("radio", name=scope).click()
    page.get_by_role("button", name="Run the real model").click()
    expect(page.locator(".job")).to_be_visible()


def cancel(page):
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("The run ended early: cancelled.")).to_be_visible()
    expect(page.locator(".job")).to_have_count(0)


def move(page):
    """Milliseconds from an arrow key until the figures say something else."""
    before = page.locator(".figures").inner_text()
    sidebar(page).get_by_role("slider").nth(3).press("ArrowRight")
    begun = time.monotonic()
    until(page, lambda: page.locator(".figures").inner_text() != before, "the figures change")
    return 1000 * (time.monotonic() - begun)


def test_one_runs_at_a_time_others_wait_and_every_session_stays_live(chromium, address):
    with (
        opened(chromium, address) as first,
        opened(chromium, address) as second,
        opened(chromium, address) as third,
        opened(chromium, address) as fourth,
    ):
        start(first, "all grids of the tile rule")
        start(second)
        expect(second.locator(".job")).to_contain_text("waits: 1 in line")
        expect(first.locator(".job")).to_contain_text("1 waiting", timeout=20_000)
        for page in (first, second, third, fourth):  # a run may not block a slider, neither its own session's nor another's
            assert min(move(page) for _ in range(2)) < 3000
        expect(first.locator(".job progress")).to_be_visible()
        cancel(second)
        cancel(first)
        expect(third.get_by_text("ended early")).to_have_count(0)


def test_the_button_puts_measured_points_on_the_charts_and_they_stay(page):
    assert not any(rows.get("points") for rows in datasets(page))
    open_tab(page, "Spot check")
    page.get_by_label("device").select_option(label="meta (exact, no GPU)")
    page.get_by_role("button", name="Run the real model").click()
    open_tab(page, "Overview")
    until(page, lambda: len(drawn(page)) == 3, "charts while it runs")
    open_tab(page, "Spot check")
    expect(page.get_by_text(re.compile(r"^All \d+ numbers of modules .* equal the analytic value, as integers\.$"))).to_be_visible(
        timeout=RUN_MS
    )
    differences = page.locator("table tbody tr td:nth-child(3)")
    expect(differences.first).to_be_visible()
    assert set(differences.all_inner_texts()) == {"0"} and differences.count() >= 20
    open_tab(page, "Overview")
    until(page, lambda: any(rows.get("points") for rows in datasets(page)), "measured points on the overview")
    points = next(rows["points"] for rows in datasets(page) if rows.get("points"))
    assert all(point["clear"] and point["difference"] == 0 for point in points) and len(points) > 10
    assert " ".join(points[0]["measured"].split()) == "measured: transformers, UnlimitedOcr class, random weights, sdpa, meta"
    sidebar(page).get_by_label("resolution mode").select_option(label="Base")
    until(page, lambda: not any(rows.get("points") for rows in datasets(page)), "points of another setting are not shown by themselves")
    page.get_by_role("switch", name="also what was measured with other settings").click()
    until(
        page,
        lambda: any(rows.get("points") and not rows["points"][0]["clear"] for rows in datasets(page)),
        "with the switch they stay, marked as another's",
    )
