"""What there is to choose from, as frames, and the same on the command line."""

import json

import pytest

import ocr_flops as of
from ocr_flops import cli
from ocr_flops.spec.listing import LISTS
from ocr_flops.spec.reading import offered


def test_devices_and_grids_as_frames():
    devices = of.hardware()
    assert devices["hardware"].to_list() == list(offered("hardware"))
    l4 = devices.row(devices["hardware"].to_list().index("l4"), named=True)
    assert (l4["bf16_flops_per_second"], l4["memory_bytes"], l4["flash_attention"]) == (121e12, 24e9, True)
    grids = of.grids()
    assert grids.height == 23 and grids.row(0) == (1, 1, 0, of.Workload.from_grid(1, 1).image_tokens)


@pytest.mark.parametrize(
    ("what", "group"),
    [("models", "model"), ("hardware", "hardware"), ("modes", "workload"), ("attention", "attention"), ("engines", "engine")],
)
def test_the_command_lists_every_config(what, group, capsys, monkeypatch):
    assert cli.main(["list", what, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row[group] for row in rows} == set(offered(group)) and len(LISTS) == 5
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["list", what]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
