"""What a page costs against its size, by model."""

from ocr_flops.charts.models import cost_by_model_chart, cost_by_size_chart
from ocr_flops.spec.run_spec import load_run
from ocr_flops.studies.models import PageText, compare_models, cost_by_size
from tests.support.drawing import assert_draws, headline, texts


def test_a_line_a_model_named_at_its_end():
    run, page = load_run(["hardware=l4"]), PageText()
    for price, words in ((None, "the time of a page is"), (2.0, "the cost of a thousand pages is")):
        points = cost_by_size(run, ("deepseek_ocr", "tiny_test"), page, (0.4, 1.0, 2.0), price_per_hour=price)
        chart = cost_by_size_chart(points, run, page)
        assert words in headline(chart) and "times as much on DeepSeek-OCR" in headline(chart) and "NVIDIA L4" in headline(chart)
        assert [row["text"] for row in chart.datasets["ends"]] == ["tiny test model", "DeepSeek-OCR"]
        assert "1654 x 2339 px" in texts(chart) and len({row["colour"] for row in chart.datasets["points"]}) == 2
        assert_draws(chart)


def test_a_bar_a_model_with_its_range_and_batch():
    for price, finding in ((None, "pages a day on "), (2.0, "A thousand pages cost ")):
        found = compare_models(load_run(["hardware=l4"]), ("deepseek_ocr", "tiny_test"), PageText(), price_per_hour=price, best_batch=True)
        chart = cost_by_model_chart(found, load_run(["hardware=l4"]), PageText(), "EUR")
        assert finding in headline(chart) and [bar["text"].split("batch ")[1] for bar in chart.datasets["bars"]] == [
            str(size) for size in found["batch_size"]
        ]
        assert ("EUR" in headline(chart)) == bool(price)
        assert_draws(chart)


def test_names_of_lines_that_end_together_stand_apart():
    run, page = load_run(["hardware=l4"]), PageText()
    points = cost_by_size(run, ("deepseek_ocr",), page, (1.0, 2.0))
    twice = points.vstack(points.with_columns(label=points["label"] + " again"))
    first, second = cost_by_size_chart(twice, run, page).datasets["ends"]
    assert second["value"] > 1.02 * first["value"]
