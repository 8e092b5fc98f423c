"""What each chart of a sweep finds, in words: the title, then the lines below it. Every number is of the points shown."""

from ocr_flops.charts.sweep.wording import Format, Wording, name_memory
from ocr_flops.charts.theme import in_bytes, in_flops
from ocr_flops.units import seconds, share, si

MAX_DEVICES = 3  # that are compared with
Lines = tuple[str, ...]  # a finding, then the lines below it


def title_flops(words: Wording) -> Lines:
    """The stage with most FLOPs at the most expensive point, and the range of all stages together."""
    return _title_stages(words, "total_flops", ("takes", "does"), in_flops)


def _title_stages(words: Wording, cost: str, verbs: tuple[str, str], form: Format) -> Lines:
    (takes, does), all_stages = verbs, words.format_range(cost, form)
    stage, part, row = words.find_top_stage(cost)
    if len(words.summary.stages) == 1:
        return (f"{stage.capitalize()} {takes} {all_stages}",)
    below = [f"All stages together: {all_stages}"] if " to " in all_stages else []
    return f"{stage.capitalize()} {does} {part} of the {form(row[cost])}{words.at_point(row, cost)}", *below


def title_split(words: Wording) -> Lines:
    """How much of the work runs on matrix units at the most expensive point."""
    row = words.summary.most("total_flops")
    if not row["total_flops"]:
        return ("No FLOPs",)
    part = 100 * row["tensor_flops"] / row["total_flops"]
    return (f"Matrix units do {part:.3g} % of the FLOPs{words.at_point(row, 'total_flops')}, vector units the rest",)


def title_split_range(words: Wording) -> Lines:
    """The range of both kinds of work."""
    tensor, vector = (words.format_range(name, in_flops) for name in ("tensor_flops", "vector_flops"))
    return (f"Matrix units: {tensor}; vector units: {vector}",)


def title_traffic(words: Wording) -> Lines:
    """What the leanest attention moves less than eager; without such a pair, the stage that moves most."""
    if not words.kernels or words.kernels[0]["io_bytes"] <= words.kernels[1]["io_bytes"]:
        return _title_stages(words, "io_bytes", ("moves", "moves"), in_bytes)
    eager, lean = (row["io_bytes"] for row in words.kernels)
    place = words.at_point(words.kernels[0], "io_bytes", "attention")
    finding = f"{words.kernels[1]['attention']} moves {share(eager - lean, eager)} less than eager{place}"
    all_stages = words.format_range("io_bytes", in_bytes)
    below = [f"All stages together: {all_stages}"] if " to " in all_stages else []
    return f"{finding}: {in_bytes(lean)} instead of {in_bytes(eager)}", *below


def title_intensity(words: Wording) -> Lines:
    """The range of every stage, and the ridge points of devices."""
    measures = {stage: f"{stage}.arithmetic_intensity" for stage in words.summary.stages}
    ranges = [f"{stage} {words.format_range(name, '{:.3g}'.format)}" for stage, name in measures.items() if words.summary.has(name)]
    ridges = ", ".join(f"{device} {value:.3g}" for (_, device), value in words.ridge_points.items())
    below = f"In balance (matrix peak over bandwidth): {ridges}; below it memory bounds, above it matrix units"
    return f"FLOPs per byte moved: {', '.join(ranges)}", *([below] if ridges else [])


def title_memory(words: Wording) -> Lines:
    """The most that is needed."""
    row, needed = words.summary.most("needed_bytes"), words.format_range("needed_bytes", in_bytes)
    begin = f"The most{words.at_point(row, 'needed_bytes')}" if " to " in needed else "Of it"
    return f"It needs {needed} of device memory", f"{begin}: {name_memory(row)}"


def title_weights(words: Wording) -> Lines:
    """The weights of every stage."""
    ranges = [f"{stage} {words.format_range(f'{stage}.weight_bytes', in_bytes)}" for stage in words.summary.stages]
    return f"Weights used: {', '.join(ranges)}", f"All of the model's weights together: {words.format_range('weights', in_bytes)}"


def title_activations(words: Wording) -> Lines:
    """What the leanest attention holds less than eager; without such a pair, the largest peak."""
    measure = "peak_activation_bytes"
    stage, _, row = words.find_top_stage(measure)
    largest, where = in_bytes(row[measure]), f"in {stage}{words.at_point(row, measure)}"
    if words.kernels and words.kernels[0][measure] > words.kernels[1][measure]:
        eager, lean = (in_bytes(row[measure]) for row in words.kernels)
        place = words.at_point(words.kernels[0], measure, "attention")
        finding = f"{words.kernels[1]['attention']} holds at most {lean} at once instead of eager's {eager}{place}"
        return finding, f"The largest: {largest} {where}"
    return f"At most {largest} of activations live at once, {where}", f"Least: {in_bytes(words.summary.least(measure)[measure])}"


def title_kv_cache(words: Wording) -> Lines:
    """Its range, and what a token of a page takes."""
    row, taken = words.summary.most("kv_cache_bytes"), words.format_range("kv_cache_bytes", in_bytes)
    if not row["kv_cache_bytes"]:
        return ("No stage shown has a KV cache",)
    tokens = row["context_tokens"] + (row["output_tokens"] if "decode" in words.summary.stages else 0)
    each, rest = divmod(row["kv_cache_bytes"], tokens * row["batch_size"])
    pages = f"{row['batch_size']:,} pages" if row["batch_size"] > 1 else "a page"
    begin = f"The most{words.at_point(row, 'kv_cache_bytes')}: " if " to " in taken else ""
    return f"The KV cache takes {taken}", *([] if rest else [f"{begin}{each:,} B for each of the {tokens:,} tokens of {pages}"])


def title_times(words: Wording, phase: str) -> Lines:
    """Expected times to the first token ("ttft"), or of an output token ("tpot")."""
    measure, begin = f"{phase}.expected_seconds", {"ttft": "The first token comes after", "tpot": "An output token takes"}[phase]
    all_points, model = words.format_range(measure, seconds), "Expected, with a host that issues operators: a model, not a measurement"
    times = [seconds(row[measure]) for row in words.kernels or () if row.get(measure) is not None]
    if len(set(times)) < 2:
        return f"{begin} {all_points}", model
    place = words.at_point(words.kernels[0], measure, "attention")
    finding = f"{begin} {times[1]} with {words.kernels[1]['attention']}, {times[0]} with eager{place}"
    return finding, f"All points: {all_points}. {model}"


def title_required(words: Wording, phase: str, cost: str, target: float) -> Lines:
    """The rates of "tensor_flops" or "io_bytes" that a target in seconds for "ttft" or "tpot" requires."""
    unit, work, peak, peaks = ("FLOP/s", "matrix work", "matrix_flops_per_second", "dense peak")
    if cost == "io_bytes":
        unit, work, peak, peaks = ("B/s", "DRAM traffic", "bandwidth_bytes_per_second", "bandwidth")
    what, measure = "A first token" if phase == "ttft" else "An output token", f"{phase}.{cost}"
    rates = words.format_range(measure, lambda value: si(value, unit), 1 / target)
    finding = f"{what} within {seconds(target)} takes {rates} of {work}"
    below = "Sustained, and beside the other rate: neither alone is enough"
    if not words.summary.has(peak):
        return finding, below
    row = words.summary.most(measure)
    devices = words.summary.points.select("device", peak).unique(maintain_order=True).drop_nulls().rows()[:MAX_DEVICES]
    parts = ", ".join(_as_part(row[measure] / target, value, f"the {peaks} of {device}") for device, value in devices)
    return finding, below, f"The most{words.at_point(row, measure, 'hardware')} is {parts}"


def _as_part(value: float, whole: float, name: str) -> str:
    """A part of a whole, or how many times the whole it is."""
    if value > 2 * whole:
        return f"{value / whole:,.3g} times {name}"
    return f"{share(value, whole)} of {name}".replace(" %", "\N{NO-BREAK SPACE}%")
