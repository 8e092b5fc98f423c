"""Where pages come from: tables of every kind, globs, mixes of formats and sizes."""

import polars as pl
import pytest

from ocr_flops.errors import SpecError
from ocr_flops.studies.corpus.sources import demo_table, is_mix, mix_table, open_pages

PAGES = pl.DataFrame({"width": [1654, 800], "height": [2339, 600]})
WRITERS = {
    ".parquet": PAGES.write_parquet,
    ".csv": PAGES.write_csv,
    ".arrow": PAGES.write_ipc,
    ".tsv": lambda path: PAGES.write_csv(path, separator="\t"),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_table_of_every_kind(suffix, tmp_path):
    for name in ("1", "2"):
        WRITERS[suffix](tmp_path / f"{name}{suffix}")
    assert open_pages(tmp_path / f"1{suffix}").table.collect().equals(PAGES)
    assert open_pages(f"{tmp_path}/*{suffix}").table.collect().height == 4


def test_a_mix_has_sizes_as_scanned():
    assert mix_table("a4@200:900, letter:7,1080x1920:5").rows() == [(1654, 2339, 900), (1700, 2200, 7), (1080, 1920, 5)]
    assert is_mix("a4:1,slide:2") and not is_mix("pages.csv")


def test_the_demonstration_has_many_grids():
    assert demo_table()["width_px"].min() > 300 and demo_table().n_unique() > 10_000


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone.parquet", "gone.parquet does not exist"),
        ("no*.csv", r"no\*\.csv cannot be read"),
        ("torn.parquet", "torn.parquet cannot be read"),
        ("x.docx", "is no folder and no table"),
    ],
)
def test_what_cannot_be_read_is_named(path, message, tmp_path):
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(SpecError, match=message):
        open_pages(tmp_path / path)


def test_a_delta_table_without_its_package(tmp_path, monkeypatch):
    def missing(path):
        raise ImportError

    monkeypatch.setattr(pl, "scan_delta", missing)
    (tmp_path / "pages" / "_delta_log").mkdir(parents=True)
    with pytest.raises(SpecError, match="needs the package deltalake"):
        open_pages(tmp_path / "pages")
