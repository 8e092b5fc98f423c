"""How fast the app feels, in headless Chromium: `make bench-browser` prints it beside a minimal marimo page measured in the same run.

- slider: an arrow key on a slider until every chart in view is repainted, in turns on tabs of the app and on the other page; and the time
  that the page's process and the server compute for all that follows from the key, which other work on the machine does not change
- first chart: from opening the page until a chart is drawn, by a server that runs already; in turns on both pages
- memory: resident set of the app's server with one session open, and whether torch is loaded in it
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.support.driving import CHROMIUM, FLAGS

# Every painted text is dated on its canvas. What a key changes is repainted once a canvas in view was painted after it and all have rested.
DATED = """
const fill = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (...args) { this.canvas.painted = performance.now(); return fill.apply(this, args) };
window.canvases = (root = document) => [...root.querySelectorAll('canvas.marks'),
  ...[...root.querySelectorAll('*')].filter(e => e.shadowRoot).flatMap(e => canvases(e.shadowRoot))];
window.inView = () => canvases().filter(c => { const b = c.getBoundingClientRect();
  return b.width && b.height && b.top < innerHeight && b.bottom > 0 });
window.addEventListener('keydown', event => { window.pressed = performance.now() }, true);
window.repainted = () => { const last = Math.max(...inView().map(c => c.painted));
  return last > window.pressed && last < performance.now() - 300 ? last - window.pressed : 0 };
"""

TABS = "Overview,Savings"
SLIDERS = {"Tiling": 1, "Serving": 4, "Corpus": 5}  # that changes what a tab shows, of all on the page; on others the batch's
BATCH = 3
STARTS = {"Serving": "&serving_concurrency=4"}  # from which six steps up have an answer
STEP_SECONDS = 0.5  # in which nothing looks at a page: that would take of its time
OPENED = 3  # times that each page is opened


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presses", type=int, default=60, help="arrow keys on each page (default %(default)s)")
    parser.add_argument("--tabs", default=TABS, help="of the app, with commas (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    minimal = [sys.executable, "-m", "marimo", "run", str(Path(__file__).with_name("minimal_page.py")), "--headless", "--port"]
    ours = [sys.executable, "-m", "ocr_flops", "app", "--headless", "--port"]
    with served(ours) as (address, server), served(minimal) as (beside, other), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        first = [[opened(browser, one)[1] for one in (address, beside)] for _ in range(OPENED)]
        pages = {name: opened(browser, f"{address}/?tab={quote(name)}{STARTS.get(name, '')}")[0] for name in options.tabs.split(",")}
        time.sleep(1)
        memory = sum(one.memory_info().rss for one in family(server))
        torch = any("libtorch" in one.path for process in family(server) for one in process.memory_maps())
        sliders = {name: page.get_by_role("slider").nth(SLIDERS.get(name, BATCH)) for name, page in pages.items()}
        pages["minimal"] = opened(browser, beside)[0]
        sliders["minimal"] = pages["minimal"].get_by_role("slider").first
        times, computed, answered = ({name: [] for name in pages} for _ in range(3))
        counters = {name: page.context.new_cdp_session(page) for name, page in pages.items()}
        for number in range(options.presses + 5):
            for name, page in pages.items():
                process = psutil.Process((other if name == "minimal" else server).pid)
                before, began = processor_ms(counters[name]), sum(process.cpu_times()[:2])
                took = press(page, sliders[name], "ArrowRight" if number % 12 < 6 else "ArrowLeft")
                if number >= 5:  # the first ones warm caches up
                    times[name].append(took)
                    computed[name].append(processor_ms(counters[name]) - before)
                    answered[name].append(1e3 * (sum(process.cpu_times()[:2]) - began))
        charts = {name: page.evaluate("inView().length") for name, page in pages.items()}
        browser.close()
    found = {
        f"{name.lower().replace(' ', '_')}_{what}": value
        for name in pages
        for what, value in {
            "charts_in_view": charts[name],
            "median_ms": round(statistics.median(times[name]), 1),
            "p95_ms": round(statistics.quantiles(times[name], n=20)[-1], 1),
            "page_processor_ms": round(statistics.mean(computed[name]), 1),
            "server_processor_ms": round(statistics.mean(answered[name]), 1),
            "ratio": round(statistics.median(times[name]) / statistics.median(times["minimal"]), 2),
        }.items()
    }
    found |= {
        f"{name}first_chart_s": round(statistics.median(took), 2)
        for name, took in zip(("", "minimal_"), zip(*first, strict=True), strict=True)
    }
    found |= {"server_rss_mb": round(memory / 1e6), "torch_in_the_server": torch}
    print(json.dumps(found) if options.json else "\n".join(f"{name:24} {value}" for name, value in found.items()))
    return 0


@contextmanager
def served(command: list[str]):
    """A server of a page on a free port: its address and process."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        yield address, server
    finally:
        for process in family(server):
            process.kill()
        server.wait(10)


def family(server: subprocess.Popen) -> list[psutil.Process]:
    """A server's process and those it started."""
    process = psutil.Process(server.pid)
    return [process, *process.children(recursive=True)]


def opened(browser, address: str):
    """A page, and the seconds until its first chart was drawn."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(DATED)
    start = time.monotonic()
    page.goto(address)
    page.wait_for_function("inView().some(c => c.painted)", timeout=30_000)
    took = time.monotonic() - start
    time.sleep(1.5)
    return page, took


def press(page, slider, key: str) -> float:
    """Milliseconds from an arrow key on a slider until every chart in view is repainted."""
    slider.focus()
    slider.press(key)
    time.sleep(STEP_SECONDS)
    return page.wait_for_function("repainted()", polling=100, timeout=10_000).json_value()


def processor_ms(counter) -> float:
    """Milliseconds that a page's process has computed so far."""
    counter.send("Performance.enable")
    return 1e3 * next(one["value"] for one in counter.send("Performance.getMetrics")["metrics"] if one["name"] == "ProcessTime")


if __name__ == "__main__":
    sys.exit(main())
