"""Lines that benchmarks leave for the table printed at the end."""

import pytest

LINES: list[tuple[str, str, str]] = []


@pytest.fixture
def tell():
    """Adds a line to the table: what, its figure, and how it compares."""

    def add(what: str, figure: str, compared: str = "") -> None:
        LINES.append((what, figure, compared))

    return add


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    if not LINES:
        return
    widths = [max(len(line[column]) for line in LINES) for column in (0, 1)]
    terminalreporter.section("benchmarks")
    for what, figure, compared in LINES:
        terminalreporter.write_line(f"{what:{widths[0]}}  {figure:>{widths[1]}}  {compared}")
