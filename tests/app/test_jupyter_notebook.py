"""The Jupyter twin: as it is stored, and as it behaves in a kernel, its widgets moved as a user would."""

import dataclasses
import json
import re

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from ocr_flops.app.setting import FIGURES, Setting
from ocr_flops.app.views import VIEWS
from ocr_flops.spec.catalog import notebook_dir

PATH = notebook_dir() / "what_if.ipynb"
CHANGES = {  # control: another value
    "mode": "base", "source": "grid", "width_px": 640, "height_px": 640, "columns": 9, "rows": 1, "prompt_tokens": 500,
    "output_tokens": 2048, "batch_size": 64, "attention": "eager", "engine": "remote_code", "dtype": "fp32", "cache": "static", "gpu": "h200",
    "engine_weights": "fp8", "engine_cache": "fp8",
}  # fmt: skip
HOST = {
    "host": "graphs",
    "operator_us": 30,
    "launch_us": 0,
    "matrix_efficiency": 0.5,
    "vector_efficiency": 0.5,
    "bandwidth_efficiency": 0.5,
}
CHANGES |= HOST
SERVED = {"engine_weights", "engine_cache"}  # controls of engines that serve
WAIT = """
import time as clock
def wait(done, seconds=60):
    until = clock.monotonic() + seconds
    while not done():
        assert clock.monotonic() < until, said.value
        clock.sleep(0.02)
"""


class Kernel:
    """The notebook in a kernel, all cells run; its plan of all GPUs, most of what a move takes, is drawn where it is asked for."""

    def __init__(self, client):
        self.client, self.book = client, client.nb
        for number, cell in enumerate(self.book.cells):
            client.execute_cell(cell, number)
        self.outputs = [output for cell in self.book.cells if cell.cell_type == "code" for output in cell.outputs]
        self.run(f"{WAIT}\ndel drawn['draw_plan']")

    def run(self, source):
        """What more cells print."""
        cell = new_code_cell(source)
        self.book.cells.append(cell)
        self.client.execute_cell(cell, len(self.book.cells) - 1)
        assert all(output.output_type == "stream" and output.name == "stdout" for output in cell.outputs), cell.outputs
        return "".join(output.text for output in cell.outputs)

    def ask(self, expression, before=""):
        """The value of an expression."""
        return json.loads(self.run(f"{before}\nimport json\nprint(json.dumps({expression}))"))

    def move(self, **values):
        """Moves controls, and returns what is shown then: figures, charts, notice."""
        moves = "\n".join(f"controls[{field!r}].value = {value!r}" for field, value in values.items())
        return self.ask("[figures.value, charts.charts, notice.value]", moves)


@pytest.fixture(scope="module")
def executed():
    client = NotebookClient(nbformat.read(PATH, 4), timeout=60)
    with client.setup_kernel():
        yield Kernel(client)


RESET = """
some = dict(drawn)
drawn.clear()
for field, control in controls.items(): control.value = getattr(start, field)
view.value = 'Overview'
drawn.update(some)
redraw()
"""


@pytest.fixture
def kernel(executed):
    """With every control where it was, all of them moved back at once."""
    yield executed
    executed.run(RESET)


def test_what_is_stored_has_no_outputs_and_no_noise():
    text = PATH.read_text(encoding="utf-8")
    book = nbformat.reads(text, 4)
    nbformat.validate(book)
    assert text == nbformat.writes(book) + "\n", "not as nbformat writes it"
    assert book.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    ids = [cell.id for cell in book.cells]
    assert len(set(ids)) == len(ids) and all(re.fullmatch("[a-z-]+", one) for one in ids)
    for cell in book.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert cell.metadata == ({} if cell is book.cells[-1] else {"jupyter": {"source_hidden": True}}), "all but the last is folded"


def test_prose_comes_before_every_result():
    kinds = [cell.cell_type for cell in nbformat.read(PATH, 4).cells]
    assert kinds == ["markdown", "code"] * (len(kinds) // 2)


def test_all_cells_run_and_print_nothing(executed):
    assert {output.output_type for output in executed.outputs} == {"execute_result"}
    assert executed.ask("notice.value") == ""


def test_another_engine_than_the_one_set_is_named(kernel):
    shown = kernel.ask("notice.value", "own, model = model, of.load_model('glm_ocr')\ncontrols['engine'].value = 'vllm'")
    kernel.run("model = own")
    assert "is not known to run GLM-OCR: all is of transformers" in shown


def test_there_is_a_control_for_every_field_of_a_point_and_it_begins_with_its_default(kernel):
    left_out = {
        *FIGURES,
        "model",
        "ttft_ms",
        "tpot_ms",
        "price",
        "prices",
        "pages",
        "gpus",
        "plan_batch",
    }  # a device's own figures, the model, which the first cell names, and the targets of a plan
    fields = {field.name: field.default for field in dataclasses.fields(Setting) if field.name not in left_out}
    assert kernel.ask("{field: control.value for field, control in controls.items()}") == fields
    assert set(CHANGES) == set(fields)
    sliders = kernel.ask("[field for field, control in controls.items() if 'Slider' in type(control).__name__]")
    assert {"width_px", "height_px", "columns", "rows", "output_tokens", "batch_size"} == set(sliders)


@pytest.mark.parametrize("field", CHANGES)
def test_a_control_moves_the_figures_and_the_charts(kernel, field):
    if field in ("columns", "rows"):
        kernel.move(source="grid")
    if field == "source":
        kernel.move(columns=5)  # unlike the vendor's choice
    if field in SERVED:
        kernel.move(engine="vllm")
    figures, specs, _ = kernel.move()
    now, drawn, notice = kernel.move(**{field: CHANGES[field]})
    assert now != figures and (drawn != specs or field in HOST) and not notice


def test_figures_and_charts_are_those_of_the_package(kernel):
    figures, specs, _ = kernel.move(columns=9, rows=1, source="grid", gpu="h200", batch_size=4)
    expected = """
from ocr_flops.app.setting import Setting as Fresh
fresh = views.Results(model, Fresh(columns=9, rows=1, source="grid", gpu="h200", batch_size=4))
"""
    cards, basis = kernel.ask("[cards_html(headline_cards(fresh.estimates[0], fresh.timings[0])), fresh.time_basis]", expected)
    assert figures.startswith(cards) and basis in figures
    drawn = "[[chart.signals, chart.datasets] for chart in views.VIEWS['Overview'](fresh)]"
    assert [[one["signals"], one["datasets"]] for one in specs] == kernel.ask(drawn)
    assert kernel.ask("modules.value == table_html(tables.modules_table(fresh.modules))")


def test_the_plan_follows_its_targets(kernel):
    kernel.run("live(draw_plan);")
    assert kernel.ask("planned.value") == "", "nothing is computed for what is closed"
    kernel.run("planning.selected_index = 0")
    assert "NVIDIA H200" in kernel.ask("planned.value") and "cheapest" not in kernel.ask("planned.value")
    assert "USD" in kernel.ask("planned.value", "targets['prices'].value = 'l4=0.8 USD'")
    assert "no answer" in kernel.ask("planned.value", "targets['prices'].value = 'x=1'")
    kernel.run("targets['prices'].value = ''\ndel drawn['draw_plan']")


def test_pins_are_compared_the_baseline_first(kernel):
    kernel.run("pin_name.value = 'baseline'; pin.click(); pin_name.value = ''\ncontrols['attention'].value = 'eager'\npin.click()")
    assert kernel.ask("compared_charts.charts[0]['signals']['rows']") == ["baseline", "now", "eager"]
    assert "<th>baseline</th>" in kernel.ask("pinned.value")
    assert kernel.ask("compared_charts.charts[0]['signals']['rows']", "unpin.click()") == ["now"]


def test_tables_and_the_report_are_taken_away_without_a_server(kernel):
    links = kernel.ask("saved.value", "make_report.click()")
    assert [name in links for name in ("modules.csv", "modules.json", "modules.parquet", "report.html")] == [True] * 4
    assert links.count("data:") == 4 and "ocr_flops 0." in kernel.ask("charts.below")


def test_every_view_draws(kernel):
    titles = [kernel.ask("[one['signals']['title_lines'] for one in charts.charts]", f"view.value = {name!r}") for name in VIEWS]
    assert all(titles) and len({str(one) for one in titles}) == len(VIEWS)


@pytest.mark.parametrize(("valid", "wrong", "message"), [
    ({}, {"prompt_tokens": -1}, "prompt_tokens: -1 is not"), ({"dtype": "fp32"}, {"attention": "flash"}, "flash kernels take bf16 or fp16"),
])  # fmt: skip
def test_a_setting_without_a_result_gives_a_message_and_the_rest_lives_on(kernel, valid, wrong, message):
    before = kernel.move(**valid)
    figures, specs, notice = kernel.move(**wrong)
    assert "This setting has no result." in notice and message in notice and [figures, specs] == before[:2]
    figures, _, notice = kernel.move(**{field: getattr(Setting(), field) for field in wrong}, output_tokens=64)
    assert not notice and figures != before[0]


def test_a_gpu_without_a_figure_costs_the_times_alone(kernel):
    figures, specs, notice = kernel.move(gpu="t4")
    assert "There are no times" in notice and "TTFT" not in figures and "4.60 T" in figures and specs


def test_only_the_controls_that_count_are_there(kernel):
    there = "[field for field, control in controls.items() if control.layout.display != 'none']"
    grid, page = {"columns", "rows"}, {"width_px", "height_px"}
    everything = set(CHANGES) - SERVED
    assert set(kernel.ask(there)) == everything - grid
    assert set(kernel.ask(there, "controls['source'].value = 'grid'")) == everything - page
    assert set(kernel.ask(there, "controls['mode'].value = 'base'")) == everything - grid - page - {"source"}
    served = kernel.ask(there, "controls['mode'].value = 'gundam'; controls['source'].value = 'page'; controls['engine'].value = 'vllm'")
    assert set(served) == (everything | SERVED) - grid - {"cache"}


def test_nothing_is_loaded_from_elsewhere(executed):
    """No widget's HTML or script, and no result, fetches anything."""
    executed.client.set_widgets_metadata()
    state = executed.book.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    shown = [one["state"][name] for one in state.values() for name in ("value", "_css") if isinstance(one["state"].get(name), str)]
    shown += [str(output.data) for output in executed.outputs]
    assert len(shown) > 10 and not re.search(r"<script|<link|<img|<iframe|url\(|@import|https?://", " ".join(shown))
    scripts = {one["state"]["_esm"] for one in state.values() if "_esm" in one["state"]}
    assert len(scripts) == 1 and len(script := scripts.pop()) > 500_000
    assert not re.search(r"""(?:\bfrom|\bimport)\s*\(?\s*["'`][^"'`]*//""", script)
    assert {one["model_module"] for one in state.values()} <= {"anywidget", "@jupyter-widgets/base", "@jupyter-widgets/controls"}


TINY = "model, big = of.load_model('tiny_test'), model\ncontrols['mode'].value, device.value = 'tiny', 'meta'"
BIG = "model = big\nstore.clear()\nredraw()"
POINTS = "[point for one in charts.charts for point in one['datasets'].get('points', [])]"


@pytest.mark.verification
def test_the_spot_check_runs_beside_live_sliders_and_lays_its_points_over_the_chart(kernel):
    kernel.run(TINY)
    assert kernel.ask(POINTS) == []
    figures = kernel.move()[0]
    assert kernel.ask("True", "go.click()\nwait(lambda: go.disabled)")
    moved = kernel.move(batch_size=8)
    assert kernel.ask("go.disabled and not cancel.disabled"), "it has ended too soon to tell"
    assert moved[0] != figures and kernel.move(batch_size=1)[0] == figures
    kernel.run("wait(lambda: not go.disabled)")
    assert "Done in" in kernel.ask("said.value") and "as integers." in kernel.ask("compared.value")
    points = kernel.ask(POINTS)
    assert len(points) > 10 and all(point["clear"] and point["difference"] == 0 for point in points)
    assert not any(point["clear"] for point in kernel.ask(POINTS, "controls['batch_size'].value = 2")), "of another setting: faint"
    kernel.run(BIG)


def test_a_cancelled_spot_check_says_so_and_another_can_run(kernel):
    kernel.run(TINY + "\ngo.click()\nwait(lambda: go.disabled)\ncancel.click()\nwait(lambda: not go.disabled)")
    assert "cancelled" in kernel.ask("said.value") and kernel.ask("cancel.disabled and not store.frames()")
    kernel.run(BIG)


def test_a_failed_spot_check_says_why_and_what_to_do(kernel, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no module named torch >&2; exit 3\n")
    broken.chmod(0o755)
    kernel.run(f"said.value, queue = '', Queue({str(broken)!r})\ngo.click()\nwait(lambda: 'ended early' in said.value)\nqueue = Queue()")
    assert "exit code 3" in kernel.ask("said.value") and "transformers" in kernel.ask("said.value")
    kernel.run("controls['prompt_tokens'].value = -1\ngo.click()")
    assert "This setting was not run. prompt_tokens: -1" in kernel.ask("said.value")
