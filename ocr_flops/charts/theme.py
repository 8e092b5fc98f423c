"""What all charts share: colours, names and words."""

from collections.abc import Iterable, Mapping
from typing import Any

from ocr_flops.spec.host import Ranged
from ocr_flops.spec.specs import ONE
from ocr_flops.spec.tiling import rule_grids
from ocr_flops.timing.timing import Timing
from ocr_flops.units import attention_words, share, si, workload_words

# Any two colours of a palette differ for colour-blind readers too, and all are seen on white as on black: tests hold it.
FAMILIES = {
    "SAM": "#2381FC",
    "CLIP": "#507398",
    "projector, merge": "#48A483",
    "decoder attention": "#B23F47",
    "dense MLP": "#D87E08",
    "routed experts": "#CE0E14",
    "shared experts": "#FE42C3",
    "router": "#AA2FB9",
    "norms, embedding": "#6E6A73",
    "lm_head": "#77A04C",
}
BETWEEN = "between steps"  # the host's work besides the operators of modules
TIMED = {**FAMILIES, BETWEEN: "#6644FF"}
STAGE_COLOURS = {"vision": "#2F6CC3", "prefill": "#D8443C", "decode": "#199CB7"}
MEMORY_COLOURS = {"weights": "#787267", "KV cache": "#CE2590", "peak activations": "#C68800"}  # unlike those of stages
ATTENTION_COLOURS = {"eager": "#B48C6E", "sdpa": "#AD6EFF", "flash": "#7E40E0"}  # unlike those of stages, kinds of memory and modules
OTHER_ATTENTION = "#197728"
MODULES = {  # module: its family and its name on charts
    "sam.patch": ("SAM", "SAM patches"),
    "sam.attention_windowed": ("SAM", "SAM windowed attention"),
    "sam.attention_global": ("SAM", "SAM global attention"),
    "sam.mlp": ("SAM", "SAM MLP"),
    "sam.neck": ("SAM", "SAM neck"),
    "clip.embed": ("CLIP", "CLIP embedding"),
    "clip.attention": ("CLIP", "CLIP attention"),
    "clip.mlp": ("CLIP", "CLIP MLP"),
    "projector": ("projector, merge", "projector"),
    "merge": ("projector, merge", "merge"),
    "decoder.embed": ("norms, embedding", "token embedding"),
    "decoder.attention": ("decoder attention", "decoder attention"),
    "decoder.dense_mlp": ("dense MLP", "dense MLP"),
    "decoder.router": ("router", "router"),
    "decoder.routed_experts": ("routed experts", "routed experts"),
    "decoder.shared_experts": ("shared experts", "shared experts"),
    "decoder.norm_residual": ("norms, embedding", "norms and residuals"),
    "lm_head": ("lm_head", "lm_head"),
}
INK = "#808080"  # text and strokes that read on white and on black; everything else follows the theme
LIMIT = "#CC3311"  # what cannot be undercut, or must not be exceeded
CEILING_COLOURS = {
    "bandwidth": MEMORY_COLOURS["peak activations"],
    "matrix": STAGE_COLOURS["vision"],
    "vector": STAGE_COLOURS["decode"],
    "launch": MEMORY_COLOURS["KV cache"],
}
CEILING_NAMES = {"bandwidth": "memory bandwidth", "matrix": "matrix units", "vector": "vector units", "launch": "launches"}


def module_name(module: str) -> str:
    """A module's name on charts."""
    return MODULES[module][1] if module in MODULES else module.replace(".", " ").replace("_", " ").replace("mlp", "MLP")


def module_colour(module: str) -> str:
    """The colour of a module's family."""
    return FAMILIES[MODULES[module][0]] if module in MODULES else INK


def attention_colour(mode: str) -> str:
    """The colour of an attention mode."""
    return ATTENTION_COLOURS.get(mode, OTHER_ATTENTION)


def sum_by(rows: Iterable[Mapping[str, Any]], key: str, value: str) -> dict[str, Any]:
    """Sums of a column by another, in the order of the rows."""
    sums: dict[str, Any] = {}
    for row in rows:
        sums[row[key]] = sums.get(row[key], 0) + row[value]
    return sums


def conditions(row: Mapping[str, Any], with_attention: bool = True) -> str:
    """What a row of any frame ran: workload, engine, attention mode, precision."""
    attention = f", {attention_words(row['attention'])}" if with_attention else ""
    return f"{workload_words(row)}; {row['engine']}{attention}, {row['dtype']}"


def evidence_words(rows: Iterable[Mapping[str, Any]]) -> str:
    """Whether what rows hold is runnable or modelled."""
    kinds = {row["evidence"] for row in rows}
    return kinds.pop() if len(kinds) == 1 else "partly modelled"


def in_bytes(value: float) -> str:
    """Bytes in words: 24.0 GB."""
    return si(value, "B")


def in_flops(value: float) -> str:
    """FLOPs in words: 5.12 TFLOPs."""
    return si(value, "FLOPs")


def grids_words(rows: Iterable[dict[str, Any]]) -> str:
    """Which grids, views, or sizes of a page that has no mode, the rows of a sweep are about."""
    rows = list(rows)
    if not rows[0]["mode"] and rows[0]["image_width_px"]:
        (width, height), *_, last = sizes = sorted({(row["image_width_px"], row["image_height_px"]) for row in rows})
        return f"The page at {len(sizes)} sizes, {width} × {height} to {last[0]} × {last[1]} px"
    found = {(row["tiles"], row["columns"], row["rows"]): row for row in rows}
    row = next(iter(found.values()))
    if not row["tile_px"]:
        return "The modes without tiles"
    grids, mode = [(columns, rows) for _, columns, rows in sorted(found)], row["mode"].replace("_", "-").title()
    beyond = [grid for grid in grids if grid not in ((1, 1), *rule_grids())]
    if len(grids) - len(beyond) <= len(rule_grids()):
        return f"{len(grids)} grids of {mode}"
    published = f"{len(rule_grids())} published grids of {mode}"
    if not beyond:
        return f"No tiles and the {published}"
    last = " × ".join(map(str, beyond[-1]))
    return f"No tiles, the {published} and{' nearly square grids beyond them up to' if len(beyond) > 1 else ''} {last}"


def rests_on(timing: Timing, stages: Iterable[str]) -> str:
    """What the expected times of some stages rest on, in a line: the host, with microseconds an operator or a graph, and kernels."""
    host = timing.host
    each = Ranged(*(host.operator_us[case] + host.launch_us[case] for case in range(3)))
    modules = f" and {host.module_us} a module" if host.module_us.high else ""
    figures = f", {each} µs an operator{modules}" if each.high else ""
    engine = timing.estimate.config.engine
    if each.high and engine.host_operators != ONE:
        figures += f" ({engine.host_operators} times as long in the language model)"
    if set(stages) <= set(host.graphs):
        floor = host.graph_floor_us.over(engine.operators_a_kernel)
        figures = f", {host.launch_us} µs a launch, operators of at least {floor} µs"
    matrix, bandwidth = (share(one.value, 1) for one in (timing.efficiency.matrix, timing.efficiency.bandwidth))
    return f"Rests on: {host.label}{figures}; kernels reach {matrix} of the matrix peak, {bandwidth} of the bandwidth"
