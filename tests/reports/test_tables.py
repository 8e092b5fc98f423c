"""Tables: which columns they have, in which units, and how their numbers are printed."""

import polars as pl
import pytest

import ocr_flops as of
from ocr_flops.app import spot_checks
from ocr_flops.app.setting import Setting
from ocr_flops.evidence.verify import summary
from ocr_flops.reports import tables
from ocr_flops.spec.run_spec import load_run
from ocr_flops.studies.models import PageText, compare_models
from ocr_flops.timing import planning
from tests.support.results import result


def test_whole_numbers_are_exact_and_others_have_four_digits():
    values = (682_673.608, 1130.483, 77.8, 7.2, 0.351527, 0.0175, 0.0000011747, 0.0, None)
    print_value = tables.number_formats(pl.DataFrame({"x": values}))["x"]
    assert [print_value(value) for value in values] == ["682,674", "1,130", "77.80", "7.200", "0.3515", "0.0175", "<0.0001", "0", "–"]
    assert tables.number_formats(pl.DataFrame({"x": [288.0, None, 16.0]}))["x"](16.0) == "16"
    assert tables.number_formats(pl.DataFrame({"x": [2**62 - 1]}))["x"](2**62 - 1) == f"{2**62 - 1:,}"
    sums = pl.DataFrame({"x": [2**62]}).cast(pl.Int128) * 3
    assert tables.number_formats(sums)["x"](sums["x"].item()) == f"{3 * 2**62:,}"


@pytest.mark.parametrize(("values", "heads"), [
    ({"batch_size": 8}, {"DRAM traffic (GB)": ("io_bytes", 1e9), "tensor TFLOPs": ("tensor_flops", 1e12)}),
    ({"attention": "all"}, {"tensor GFLOPs": ("tensor_flops", 1e9), "weights (MB)": ("weight_bytes", 1e6)}),
])  # fmt: skip
def test_a_module_table_is_in_the_units_of_its_headings(model, values, heads):
    modules = pl.concat([one.modules for one in Setting(**values).estimates(model)])
    table = tables.modules_table(modules)
    for head, (column, unit) in heads.items():
        assert table[head].sum() == pytest.approx(modules[column].sum() / unit)
    assert all(table[name].max() < 10_000 for name, kind in table.schema.items() if kind == pl.Float64)
    several = [name for name in ("attention", "evidence") if name in table.columns]
    assert several == ["attention", "evidence"] * (values.get("attention") == "all"), "flash is modelled"
    assert modules["attention"].n_unique() == pytest.approx(table["% of FLOPs"].sum() / 100)


def test_a_device_without_a_figure_has_dashes(model):
    devices = [of.load_hardware(name) for name in ("v100_pcie", "l4")]
    estimate = Setting(batch_size=64).estimate(model, "sdpa")
    table = tables.devices_table(planning.compare_devices(estimate, devices, price_per_hour=1.0, pages=1e6), "EUR")
    assert "meets targets" not in table.columns  # as no target was given
    small, old = sorted(table.to_dicts(), key=lambda row: row["device"])
    assert small["batch"] == "64 does not fit; 18 does" and old["batch"] == "no bf16: use dtype=fp16 or fp32"
    assert [old[name] for name in ("pages a day", "time", "first token")] == ["–"] * 3 and "cost" not in table.columns
    estimate = Setting(batch_size=2).estimate(model, "sdpa")
    (row,) = tables.devices_table(planning.compare_devices(estimate, devices[1:], price_per_hour=1.0, pages=1e6), "EUR").to_dicts()
    assert " days (" in row["time"] and " EUR (" in row["cost"] and row["batch"] == "2"
    run = load_run(["hardware=h200"]).of_whole_pages()
    (row,) = tables.models_table(compare_models(run, ["deepseek_ocr"], PageText(1654, 2339, 3000), best_batch=True)).to_dicts()
    assert row["pages a day"].startswith("1.27 M (9") and " k to 1." in row["pages a day"]


def test_measured_and_verified_differences_are_exact_integers_among_the_first_columns(model):
    measured = tables.measured_table(spot_checks.build_frame(model, result(Setting())))
    assert measured["measured FLOPs"].dtype == pl.Int64 and "decode, 3 steps" in measured["stage"].to_list()
    assert measured.columns.index("FLOPs, difference") == 2
    verified = tables.verification_table(summary.read_verification())
    assert verified.columns.index("largest difference") == 3 and verified["largest difference"].dtype.is_integer()
