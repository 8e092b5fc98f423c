"""Links: what is written is read back, and what is not allowed gives a notice and the default."""

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_flops.app import links
from ocr_flops.app.links import Link
from ocr_flops.app.served import Load
from ocr_flops.app.setting import FIGURES, HOST_US, REACHED, Setting
from ocr_flops.errors import SpecError
from ocr_flops.spec.catalog import names

TABS = ("Overview", "Memory")
OTHER = Setting(
    "gundam_m", "grid", 800, 600, 7, 9, 0, 5000, 33, "flash", "remote_code", "fp16", "static", "h200", 1.5e15, 6.7e13, 4.8e12, 1.41e11, None, 7.25, 3.5,
    "graphs", 9.5, 0.0, 0.5, 0.29, 1.0, "fp8", "fp8", 7.0, 8, "best", "l4=0.8 EUR", "glm_ocr",
)  # fmt: skip
SHOWN = replace(OTHER, price=None, prices="h200=3.5 l4=0.8 EUR")  # the same, as the controls say it
OTHER_LOAD = Load("sglang", "requests a second", 7, 0.25, 8, "t4, x & y", "4096", 12, False, 0.5)


def test_another_setting_differs_in_every_field():
    assert all(getattr(OTHER, one.name) != getattr(Setting(), one.name) for one in fields(Setting))
    assert all(getattr(OTHER_LOAD, one.name) != getattr(Load(), one.name) for one in fields(Load))


@pytest.mark.parametrize("link", [
    Link(), Link(load=OTHER_LOAD), Link(SHOWN, "Memory"), Link(SHOWN, None, (("before & after = a|b?", Setting()), ("zwei ☃", SHOWN))),
])  # fmt: skip
def test_what_is_written_is_read_back(link):
    assert links.read(links.write(link), TABS) == link


@pytest.mark.parametrize(("query", "engine"), [
    ({}, None), ({"engine": "sglang"}, "sglang"), ({"engine": "sglang", "corpus_engine": "vllm"}, "vllm"),
    (links.write(Link()), "transformers"), (links.write(Link(corpus_engine="vllm")), "vllm"),
])  # fmt: skip
def test_the_engine_of_the_corpus_is_its_own_or_the_settings(query, engine):
    assert links.read(query, TABS).corpus_engine == engine
    assert "corpus_engine: 'x'" in links.read(query | {"corpus_engine": "x"}, TABS).notices[0]


def test_a_price_of_an_older_link_is_one_of_the_prices():
    link = links.read(links.write(Link(OTHER)))
    assert link.setting == SHOWN and OTHER.hour_prices == SHOWN.hour_prices and "price" not in links.write(link) and not link.notices
    assert links.read({"price": "0.8", "prices": "l4=0.7"}).setting.hour_prices == ({"l4": 0.7}, "")


def test_a_link_says_every_field_so_that_a_new_default_does_not_change_it():
    written = links.write(Link())
    optional = {*FIGURES, *HOST_US, *REACHED, "price", "prices"}
    assert set(written) == {one.name for one in fields(Setting)} - optional


@pytest.mark.parametrize(("key", "text", "allowed"), [
    ("mode", "huge", "one of tiny, small, base, large, gundam, gundam_m"), ("source", "file", "one of page, grid"),
    ("width_px", "0", ">= 1"), ("width_px", "1000001", "<= 1000000"), ("rows", "-1", ">= 1"), ("columns", "٣", "int"), ("columns", "2.5", "int"),
    ("batch_size", "65537", "<= 65536"), ("prompt_tokens", " 7", "int"), ("output_tokens", "9" * 400, "<="), ("attention", "Flash", "one of eager"),
    ("engine", "", "one of"), ("dtype", "fp64", "one of bf16"), ("cache", "none", "one of dynamic, static"), ("rows", "none", "int"),
    ("gpu", "../../etc/passwd", "names in its list"), ("price", "nan", "> 0"), ("memory_bytes", "-1", "> 0"), ("ttft_ms", "inf", "<="), ("tpot_ms", "x", "float"),
    ("host", "fast", "one of engine, eager, graphs,"), ("operator_us", "-1", ">= 0"), ("launch_us", "nan", ">= 0"), ("matrix_efficiency", "1.01", "<= 1"),
    ("vector_efficiency", "0", ">= 0.001"), ("bandwidth_efficiency", "half", "float` or none"),
])  # fmt: skip
def test_a_value_that_is_not_allowed_gives_a_notice_and_the_default(key, text, allowed):
    link = links.read({key: text}, TABS)
    assert link.setting == Setting() and len(link.notices) == 1
    assert link.notices[0].startswith(f"{key}: ") and allowed in link.notices[0] and len(link.notices[0]) < 220


@pytest.mark.parametrize(("key", "text"), [
    ("engine", "transformers"), ("load", "heavy"), ("concurrency", "0"), ("rate", "inf"), ("replicas", "1e9"), ("ngram_ban", "maybe"), ("first_token_seconds", "-1"),
])  # fmt: skip
def test_a_load_that_is_not_allowed_gives_a_notice_and_the_default(key, text):
    link = links.read({f"serving_{key}": text}, TABS)
    assert link.load == Load() and len(link.notices) == 1 and link.notices[0].startswith(f"serving_{key}: ")


def test_the_other_fields_of_a_damaged_link_are_kept():
    written = links.write(Link(OTHER, "Memory"))
    link = links.read(written | {"mode": "x", "tab": "Gone", "utm": "1", "rows": ["3", "4"]}, TABS)
    assert link.setting == replace(SHOWN, mode="gundam", rows=4) and link.tab is None
    assert {notice.split(":")[0] for notice in link.notices} >= {"mode", "rows", "tab"} and len(link.notices) == 4


def test_marimos_own_parameters_are_not_mentioned():
    assert links.read({"access_token": "secret", "session_id": "s_1"}, TABS) == Link()


@pytest.mark.parametrize(("pin", "said"), [
    ("mode=tiny", "has no name"), ("name=a&" + "&".join(f"k{number}=1" for number in range(99)), "too many fields"), ("name=a&mode=x", "mode: 'x'"),
])  # fmt: skip
def test_a_damaged_pin_gives_a_notice(pin, said):
    link = links.read({"pins": f"name=good&mode=base|{pin}"}, TABS)
    assert link.pins[0] == ("good", Setting(mode="base")) and said in " ".join(link.notices)


def test_more_pins_than_are_shown_are_left_out():
    link = links.read({"pins": "|".join(f"name=p{number}" for number in range(links.MAX_PINS + 3))}, TABS)
    assert len(link.pins) == links.MAX_PINS and len(link.notices) == 3


def test_a_pin_of_a_link_takes_nobody_elses_name():
    link = links.read({"pins": "name=now&batch_size=8|name=a|name=a&batch_size=2"}, TABS)
    assert [(name, pin.batch_size) for name, pin in link.pins] == [("now 2", 8), ("a", 1), ("a 2", 2)]


def test_a_flood_of_notices_is_cut():
    link = links.read({f"k{number}": "x" for number in range(500)}, TABS)
    assert len(link.notices) == links.MAX_NOTICES + 1 and link.notices[-1] == "And 488 more."


@pytest.mark.parametrize(("text", "taken", "name"), [
    ("  two\nlines\t", (), "two lines"), ("", (), "pin"), ("\x00\x1b", (), "pin"), ("a", ("a",), "a 2"), ("a", ("a", "a 2"), "a 3"), ("x" * 99, (), "x" * 40),
    ("x" * 99, ("x" * 40,), "x" * 36 + " 2"),
])  # fmt: skip
def test_pin_names(text, taken, name):
    assert links.pin_name(text, taken) == name


def test_a_pin_may_keep_its_name():
    assert links.pin_name("a", ("a", "b"), instead_of="a") == "a"


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([one.name for one in fields(Setting)] + ["tab", "pins", "?"]), st.text() | st.lists(st.text(), max_size=4)
    )
)
def test_no_text_breaks_reading(query):
    link = links.read(query, TABS)
    assert links.read(links.write(link), TABS) == replace(link, notices=())


def test_a_setting_has_its_device_with_its_own_figures():
    device = replace(OTHER, gpu="l4", model="deepseek_ocr").device
    assert device.matrix_peak("fp16") == 1.5e15 and device.memory_bytes == 1.41e11 and device.label.startswith("NVIDIA L4 (24 GB)")
    assert Setting(gpu="h200").device.memory_bytes == 141e9
    assert set(names("hardware")) >= {"l4", "h200"}


@pytest.mark.parametrize(
    ("changed", "said"), [({"gpu": "t4"}, "bf16"), ({"memory_bytes": -1.0}, "memory_bytes: -1.0"), ({"gpu": "?"}, "hardware")]
)
def test_a_device_that_cannot_be_is_an_error(changed, said):
    with pytest.raises(SpecError, match=said):
        replace(Setting(), **changed).device  # noqa: B018
