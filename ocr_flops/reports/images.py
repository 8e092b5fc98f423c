"""Charts as SVG and PNG, by vl-convert: in this process, or in a short-lived child.

vl-convert runs Vega in a JavaScript engine of its own, which keeps about 130 MB for the rest of the process's life. The app draws in a
child, so that the memory goes back when the download is done, and in one child at a time, however many users there are.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from functools import cache
from html import escape
from importlib.metadata import version
from threading import RLock
from typing import TYPE_CHECKING, Any

from ocr_flops import __version__
from ocr_flops.errors import SpecError, one_of
from ocr_flops.files import Progress, no_progress, user_cache_dir, write_whole

if TYPE_CHECKING:
    from ocr_flops.charts import Chart

MARGIN_PX = 16
LINE_PX, LETTER_PX = 14, 5.6  # of the words below a chart
CHILD_SECONDS = 120
MAX_MESSAGE = 400  # characters of a failure's message
_ONE_CHILD = RLock()


class DrawingError(RuntimeError):
    """The child that draws charts failed; the message says how."""


def chart_images(
    charts: Mapping[str, Chart],
    format: str = "svg",
    *,
    width_px: int = 1000,
    scale: float = 2,
    below: str = "",
    in_child: bool = True,
    progress: Progress = no_progress,
) -> dict[str, bytes]:
    """Charts as images on white.

    Args:
        charts: by name.
        format: "svg" or "png".
        width_px: of a chart, axes and legend included.
        scale: pixels of a PNG for each of these.
        below: words below each chart, as of `provenance`.
        in_child: draw in a child process, which takes 0.6 s longer and leaves this process as small as it was.
        progress: called after every chart that is drawn in this process.

    Raises:
        SpecError: another format.
        DrawingError: the child failed.
    """
    one_of("format", format, ("svg", "png"))
    jobs = []
    for spec in (chart.to_dict() for chart in charts.values()):
        spec |= {"width": width_px, "padding": MARGIN_PX, "config": {**spec.get("config", {}), "background": "white"}}
        jobs.append({"kind": format, "spec": spec, "scale": scale, "below": below})
    return dict(zip(charts, run_jobs(jobs, in_child, progress), strict=True))


def provenance(words: str) -> str:
    """What a chart that is taken away says of itself: what it is of, the version and the date."""
    return f"{words.removesuffix('.')}. ocr_flops {__version__}, {date.today()}"


def _with_words(svg: str, words: str) -> str:
    """An image on white with words below it."""
    width, height = (float(number) for number in re.search(r'width="([\d.]+)" height="([\d.]+)"', svg).groups())
    lines = textwrap.wrap(words, int((width - 2 * MARGIN_PX) / LETTER_PX))
    texts = "".join(f'<text x="{MARGIN_PX}" y="{height + LINE_PX * row}">{escape(line)}</text>' for row, line in enumerate(lines))
    size = f'width="{width:g}" height="{height + LINE_PX * len(lines):g}"'
    look = 'font-family="sans-serif" font-size="11" fill="#555"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect {size} fill="white"/>{svg}<g {look}>{texts}</g></svg>'


@cache
def vega_javascript(in_child: bool = True) -> str:
    """Vega, Vega-Lite and Vega-Embed as one script of 0.9 MB that defines `vegaEmbed`; made once, in 2 s, and kept in the user's cache."""
    path = user_cache_dir() / f"vega-{version('vl-convert-python')}.js"
    with _ONE_CHILD:  # of visitors who come together the first makes it for all
        if path.is_file():
            return path.read_text(encoding="utf-8")
        script = run_jobs([{"kind": "javascript"}], in_child)[0].decode()
        with suppress(SpecError):  # a folder that cannot be written: it is made again by the next process
            write_whole(path, script)
    return script


def run_jobs(jobs: list[dict[str, Any]], in_child: bool, progress: Progress = no_progress) -> list[bytes]:
    """What each job gives: an image of its `spec`, or JavaScript, by its `kind`; a DrawingError where the child failed or took too long."""
    if not in_child or not jobs:
        drawn = []
        for job in jobs:
            drawn.append(_run_job(job))
            progress("drawing charts", len(drawn), len(jobs))
        return drawn
    with _ONE_CHILD:
        try:
            command = [sys.executable, "-m", __name__]
            child = subprocess.run(command, input=json.dumps(jobs).encode(), capture_output=True, timeout=CHILD_SECONDS)
        except subprocess.TimeoutExpired:
            raise DrawingError(f"drawing took longer than {CHILD_SECONDS} s and was ended") from None
    if child.returncode:
        lines = child.stderr.decode(errors="replace").strip().splitlines()
        raise DrawingError(f"drawing failed (exit code {child.returncode}): {lines[-1] if lines else 'no message'}")
    return [base64.b64decode(text) for text in json.loads(child.stdout)]


def _run_job(job: dict[str, Any]) -> bytes:
    import vl_convert

    if job["kind"] == "javascript":
        return vl_convert.javascript_bundle().encode()
    svg = vl_convert.vegalite_to_svg(job["spec"], allowed_base_urls=[])
    svg = _with_words(svg, job["below"]) if job["below"] else svg
    return vl_convert.svg_to_png(svg, scale=job["scale"]) if job["kind"] == "png" else svg.encode()


if __name__ == "__main__":  # the child: jobs as JSON on stdin, their results as JSON on stdout, a failure as one line on stderr
    try:
        json.dump([base64.b64encode(_run_job(job)).decode() for job in json.load(sys.stdin)], sys.stdout)
    except Exception as problem:
        message = str(problem).split("\n    at ")[0]  # without JavaScript's stack
        sys.exit(" ".join(message.split())[:MAX_MESSAGE])
