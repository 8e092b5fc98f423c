"""The commands about several models: `ocr-flops models` and `compare`."""

from typing import Annotated, Any, Literal

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Columns, Form, Out, Overrides
from ocr_flops.errors import SpecError, one_of

ANSWERS = (  # columns of a comparison's table in the order in which they are shown; the others follow
    "model",
    "batch_size",
    "image_tokens",
    "output_tokens",
    "total_flops",
    "memory_bytes",
    "expected_pages_per_second",
    "expected_pages_per_second_low",
    "expected_pages_per_second_high",
    "cost_per_1000_pages",
    "cost_low_per_1000_pages",
    "cost_high_per_1000_pages",
    *(f"{name}{case}" for name in ("gpu_hours", "cost") for case in ("", "_low", "_high")),  # of a corpus
    "fits",
    "reason",
)
SAID = ("batch_size", "attention", "crops", "fits")  # columns that the text says where all rows have the same
UNSAID = ("label", "time_basis", "left_out", "expected_page_seconds", "gpu_hours_per_1000_pages")  # names, and pages a day once more
MODEL = "model="


def show_models(form: Form = "table", out: Out = None, columns: Columns = "") -> int:
    """Which models there are: parameters, image tokens of an A4 page, limits, whether it is shipped, evidence."""
    from ocr_flops.studies.models import list_models

    frame = list_models()
    console.write_result("models", form, out, frame, models=frame.drop("label"), columns=columns)
    return 0


def compare_models(
    overrides: Overrides = None,
    chars: Annotated[int | None, typer.Option(metavar="N", min=1, help="Characters of a page's text, which every model writes.")] = None,
    chars_per_token: Annotated[
        list[str] | None, typer.Option(metavar="MODEL=N", help="Characters of a model's token, where they are not the ones known of it.")
    ] = None,
    crops: Annotated[
        list[str] | None, typer.Option(metavar="MODEL=N", help="Crops that a model reads instead of the page; paddleocr_vl=20 by default.")
    ] = None,
    price: Annotated[float | None, typer.Option(metavar="PRICE", help="Of one device hour, in any currency.")] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="N|best", help="Pages in a batch; best: of each model that with most pages a second that fits.")
    ] = None,
    corpus: Annotated[
        str, typer.Option(metavar="PATH", help="All pages of a folder, a table or a mix instead of one, as of ocr-flops corpus.")
    ] = "",
    chart: Annotated[
        Literal["svg", "png"] | None,
        typer.Option(help="Also draw, by model, cost against page size and memory against output, into the folder of --out."),
    ] = None,
    form: Form = "table",
    out: Out = None,
    columns: Columns = "",
) -> int:
    """What one page costs on several models (model=a,b,c; all by default), for the same text: tokens, FLOPs, memory, time, price."""
    from ocr_flops.evidence.calibration.conditions import with_records
    from ocr_flops.reports import corpus as words
    from ocr_flops.spec.reading import TEST_MODEL, offered
    from ocr_flops.spec.run_spec import MODE_KEYS, load_run
    from ocr_flops.studies import models
    from ocr_flops.studies.corpus.comparison import compare_corpus
    from ocr_flops.studies.corpus.flights import is_server
    from ocr_flops.studies.corpus.sources import open_pages
    from ocr_flops.timing.estimate import time_run

    given = overrides or []
    named = [one.removeprefix(MODEL) for one in given if one.startswith(MODEL)]
    chosen = [*dict.fromkeys(name.strip() for one in named for name in one.strip("[]").split(","))] or list(models.compared_models())
    for name in chosen:
        if name != TEST_MODEL[1]:
            one_of("model", name, offered("model"))
    run = load_run([*(one for one in given if not one.startswith(MODEL)), *console.batch_override(batch)]).of_whole_pages()
    if corpus and (run.hardware is None or batch or chart):
        raise SpecError("--corpus: needs hardware=, and neither --batch nor --chart")
    if batch == "best" and (chart or run.hardware is None):
        raise SpecError("--batch: best needs hardware=, and no --chart, which draws one batch; give --batch N")
    sides = run.workload.image_width_px, run.workload.image_height_px
    page = models.PageText(
        *(sides if all(sides) else models.A4_PX),
        characters=chars or models.CHARACTERS,
        per_token=_by_model("--chars-per-token", chars_per_token, chosen, float),
        crops=_by_model("--crops", crops, chosen, int),
    )

    def timed(one: Any, page: models.PageText) -> Any:
        return models.time_page(one, page, lambda one, estimate: time_run(with_records(one), estimate))

    options: dict[str, Any] = {"price_per_hour": price, "timed": timed}
    said: list[str] = []
    console.refuse_keys(given, ["workload.output_tokens"], "every model writes the same text, of --chars characters")
    if corpus:
        console.refuse_keys(given, ("workload.batch_size", *console.PAGE_KEYS), "a corpus has pages of its own, each in its fastest batch")
        opened = open_pages(corpus)
        found = compare_corpus(run, chosen, opened.table, page, price)
        if opened.folder:
            said += words.describe_folder(opened.folder)
            said += [f"Texts beside the images are not read: every page has {page.characters} characters."] if opened.folder.lengths else []
        for one in said if form != "table" else ():
            console.complain("compare", one)
        for column, head in (("left_out", "Left out for"), ("reason", "No number for")):
            for why, of_them in found.drop_nulls(column).group_by(column, maintain_order=True):
                said.append(f"{head} {', '.join(of_them['label'])}: {why[0]}.")
    else:
        console.refuse_keys(given, (*MODE_KEYS, *console.PAGE_KEYS[2:]), "a page has its size, and DeepSeek-OCR reads it in Gundam")
        found = models.compare_models(run, chosen, page, **options, best_batch=batch == "best")
    if chart:
        _draw(run, [row["model"] for row in found.to_dicts() if row["reason"] is None], page, chart, out, options)
    same = [name for name in SAID if found.height > 1 and name in found.columns and found[name].n_unique() == 1]
    empty = [name for name in found.columns if found[name].null_count() == found.height]
    hidden = (*UNSAID, *same, *empty, *["reason"] * bool(corpus))
    shown = [name for name in ANSWERS if name in found.columns and name not in hidden]
    table = found if columns else found.select(*shown, *(name for name in found.columns if name not in (*shown, *hidden)))
    bases = [] if "time_basis" not in found.columns else found["time_basis"].drop_nulls().unique(maintain_order=True).to_list()
    read = [row["model"] for row in found.to_dicts() if row["reason"] is None] if corpus else chosen
    values = {"run": run, "page": page, "table_of": table, "columns": columns, "bases": bases}
    said += [one for one in (models.reading_words(page, read) if read else "", models.kernel_words(found)) if one]
    values |= {"batch": batch, "price": price, "corpus": corpus, "said": said, "is_served": is_server(run.engine)}
    console.write_result("compare", form, out, found, **values)
    return 0


def _by_model(option: str, given: list[str] | None, chosen: list[str], kind: type) -> dict[str, Any]:
    """The numbers of an option that gives one for each of some models, as in `--crops paddleocr_vl=12`."""
    found = {}
    for word in given or ():
        name, equals, number = word.partition("=")
        one_of(option, name, tuple(chosen))
        try:
            value = kind(number) if equals else None
        except ValueError:
            value = None
        if value is None or not 0 < value < 1e6:
            raise SpecError(f"{option}: {word!r} is not MODEL=N with a {'whole ' if kind is int else ''}number above 0")
        found[name] = value
    return found


def _draw(run: Any, chosen: list[str], page: Any, form: str, out: Any, options: dict[str, Any]) -> None:
    """Draws the chart into a folder, and says where."""
    from ocr_flops.charts.models import cost_by_size_chart, memory_by_output_chart
    from ocr_flops.files import write_whole
    from ocr_flops.reports.images import chart_images
    from ocr_flops.studies import models

    if out is None or run.hardware is None:
        raise SpecError("--chart: needs --out DIR, and hardware= for times")
    lengths = [1000 * thousands for thousands in models.OUTPUTS]
    drawn = {
        "cost_by_page_size": cost_by_size_chart(models.cost_by_size(run, chosen, page, models.FACTORS, **options), run, page),
        "memory_by_output": memory_by_output_chart(models.memory_by_output(run, chosen, page, lengths), run),
    }
    for name, image in chart_images(drawn, form, in_child=False).items():
        print(write_whole(out / f"{name}.{form}", image))
