"""One server and one Chromium for all browser tests of the app."""

import pytest

from tests.support.driving import chromium_browser, opened, served


@pytest.fixture(scope="session")
def address():
    with served() as found:
        yield found


@pytest.fixture(scope="session")
def chromium():
    with chromium_browser() as browser:
        yield browser


@pytest.fixture
def page(chromium, address):
    with opened(chromium, address) as page:
        page.wait_for_selector(".marks", timeout=30_000)
        yield page
