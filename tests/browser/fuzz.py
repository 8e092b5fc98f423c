"""Random and hostile input for as long as you like: `python tests/browser/fuzz.py --minutes 10`. Prints what it did; ends at a broken page.

Links, texts in every field, files, keys and tabs, in one browser with several pages open. Broken: a traceback or an internal error on the
page, an error on the console, a request to anywhere else, or a page that no longer answers a slider.
"""

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path
from urllib.parse import quote, urlencode

sys.path.insert(0, str(Path(__file__).parents[2]))

from playwright.sync_api import TimeoutError

from ocr_flops.app.setting import Setting
from ocr_flops.app.tabs import TABS
from tests.support.driving import assert_no_traceback, chromium_browser, open_tab, opened, served, sidebar, until
from tests.support.hostile import TEXTS

HEADS = (b"\x89PNG\r\n\x1a\n", b"%PDF-1.7\n", b"GIF89a", b"\xff\xd8\xff\xe1", b"RIFF\x10\x00\x00\x00WEBP", b"II*\x00", b"")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, done, end = random.Random(options.seed), Counter(), time.monotonic() + 60 * options.minutes
    with served() as address, chromium_browser() as browser:
        while time.monotonic() < end:
            with opened(browser, address, link(chance)) as page:
                done["links"] += 1
                for _ in range(chance.randrange(4, 14)):
                    act = chance.choice((fill, key, tab, upload, choose))
                    try:
                        act(page, chance)
                        done[act.__name__] += 1
                    except TimeoutError:  # the page put something else in its place just then
                        done["missed"] += 1
                assert_no_traceback(page)
                open_tab(page, "Table")
                page.wait_for_timeout(300)
            with opened(browser, address) as page:  # the server lives, and a slider answers
                before = page.locator(".figures").inner_text()
                sidebar(page).get_by_role("slider").nth(3).press("ArrowRight")
                until(page, lambda page=page, before=before: page.locator(".figures").inner_text() != before, "a slider answers")
    print(", ".join(f"{number} {name}" for name, number in done.items()), "and nothing broke")


def link(chance: random.Random) -> str:
    names = [one.name for one in fields(Setting)] + ["tab", "pins", chance.choice(TEXTS)]
    texts = [*TEXTS, *TABS, "".join(chr(chance.randrange(1, 0x2FFF)) for _ in range(chance.randrange(1, 200)))]
    query = {name: chance.choice(texts) for name in chance.sample(names, chance.randrange(0, 9))}
    return "/?" + urlencode(query, quote_via=quote, errors="replace")


def fill(page, chance: random.Random) -> None:
    boxes = page.get_by_role("textbox")
    if count := boxes.count():
        box = boxes.nth(chance.randrange(count))
        box.fill(chance.choice(TEXTS).replace("\x00", ""), timeout=5000)
        box.press("Enter", timeout=5000)


def key(page, chance: random.Random) -> None:
    sliders = sidebar(page).get_by_role("slider")
    slider = sliders.nth(chance.randrange(sliders.count()))
    for _ in range(chance.randrange(1, 20)):
        slider.press(chance.choice(("ArrowLeft", "ArrowRight", "Home", "End", "PageUp")), timeout=5000)


def tab(page, chance: random.Random) -> None:
    open_tab(page, chance.choice(TABS))


def choose(page, chance: random.Random) -> None:
    lists = sidebar(page).get_by_role("combobox")
    one = lists.nth(chance.randrange(lists.count()))
    one.select_option(index=chance.randrange(one.locator("option").count()), timeout=5000)


def upload(page, chance: random.Random) -> None:
    source = sidebar(page).get_by_label("tile grid from")
    if source.count():
        source.select_option(label="image or PDF", timeout=5000)
        content = chance.choice(HEADS) + chance.randbytes(chance.randrange(0, 4000))
        name = chance.choice(("a.png", "b.pdf", "c.jpg", "d.tif", "<img src=x>.gif"))
        sidebar(page).locator("input[type=file]").set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


if __name__ == "__main__":
    main()
