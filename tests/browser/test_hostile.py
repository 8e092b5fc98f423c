"""Bad input in every field and random links: a notice, never a traceback, and the session goes on."""

import random
from dataclasses import fields
from urllib.parse import quote, urlencode

import pytest
from playwright.sync_api import expect

from ocr_flops.app.setting import Setting
from tests.support.driving import assert_no_traceback, drawn, opened, sidebar, until
from tests.support.hostile import TEXTS

pytestmark = pytest.mark.browser


def test_bad_numbers_in_every_field_leave_a_working_page(chromium, address):
    with opened(chromium, address, "/?source=grid&tab=Plan") as page:
        sidebar(page).get_by_text("edit its figures").click()
        boxes = page.get_by_role("textbox")
        page.get_by_placeholder("Search").wait_for()  # Plan's table, the last that is drawn
        count = boxes.count()
        assert count >= 15
        for number in range(count):
            earlier = boxes.nth(number).input_value()
            for text in ("-5", "0", "99999999999999999999", "abc", "", "3", earlier):
                boxes.nth(number).fill(text)
                boxes.nth(number).press("Enter")
            expect(boxes).to_have_count(count)  # with the value it had everything is there again
        assert_no_traceback(page)
    with opened(chromium, address) as page:  # and others are as they were
        expect(page.locator(".figures")).to_contain_text("4.60 T")


def test_random_links_open_a_working_page(chromium, address):
    chance = random.Random(7)
    names = [one.name for one in fields(Setting)] + ["tab", "pins", "x"]
    for _ in range(6):  # fuzz.py has as many as one likes
        query = {name: chance.choice(TEXTS) for name in chance.sample(names, 8)}
        with opened(chromium, address, "/?" + urlencode(query, quote_via=quote)) as page:
            sidebar(page).get_by_role("slider").first.press("ArrowRight")
            until(
                page,
                lambda page=page: page.locator(".figures").count() or page.get_by_text("This setting has no result.").count(),
                "an answer",
            )


def test_a_flood_of_keys_ends_in_the_right_place(page):
    slider = sidebar(page).get_by_role("slider").nth(3)
    for _ in range(60):
        slider.press("ArrowRight")
    expect(page.locator(".figures")).to_contain_text("batch 512", timeout=30_000)
    until(page, lambda: len(drawn(page)) == 3, "three charts")
