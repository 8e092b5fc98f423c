"""Where FLOPs, bytes and time go: shares by part of the model, to the first token and for each output token."""

from collections.abc import Mapping
from functools import cache

import altair as alt

from ocr_flops.charts.bars import StageBars, headed_axis, headed_rows, stacked
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, title
from ocr_flops.charts.encoding import listed, occurring, painted, tips
from ocr_flops.charts.theme import BETWEEN, INK, MODULES, TIMED, module_name, sum_by
from ocr_flops.timing.estimate import Estimate
from ocr_flops.timing.timing import Timing
from ocr_flops.units import seconds, share, si

PHASES = {"to the first token": ("vision", "prefill"), "each output token": ("decode",)}
MEASURES = {"total_flops": "FLOPs", "io_bytes": "DRAM traffic", "expected_seconds": "expected time"}
WORDS = {"total_flops": si, "io_bytes": lambda value: si(value, "B"), "expected_seconds": seconds}
VISION = "vision encoder"  # of learned models
PARTS = {VISION: INK, **TIMED}
SPAN = 1.24  # of a bar's length, with room for its sum on the right


def shares(estimate: Estimate, timing: Timing | None = None, *, wide: bool = False) -> Chart:
    """Bars of 100 %: which part of the model takes what share of FLOPs, of bytes and (on a device) of expected time, by the critical path.

    Args:
        estimate: of one point.
        timing: of the same point on a device.
        wide: for a place about 1000 px wide: the legend has five columns.
    """
    table = _by_module(estimate, timing)
    steps = max(1, estimate.workload.output_tokens)
    bars, ends, heads = [], [], []
    for phase, stages in PHASES.items():
        rows = [(module, row) for (stage, module), row in table.items() if stage in stages]
        measures = [name for name in MEASURES if sum(row.get(name, 0) for _, row in rows)]
        heads += [{"row": f"{phase}|", "text": phase.upper()}] if measures else []
        for measure in measures:
            place = {"row": f"{phase}|{MEASURES[measure]}", "phase": phase, "measure": MEASURES[measure]}
            whole = sum(row[measure] for _, row in rows)
            ends.append({**place, "end": 1, "text": WORDS[measure](whole / (steps if stages == ("decode",) else 1))})
            found = sum_by([{"family": _family(module), **row} for module, row in rows if row[measure]], "family", measure)
            parts = {family: found[family] for family in PARTS if family in found}
            for family, value, at in stacked(parts, scale=1 / whole):
                bars.append({**place, **at, "family": family, "part": share(value, whole), "value": WORDS[measure](value)})
    params = {"rows": headed_rows(end["row"] for end in ends), "families": occurring(PARTS, bars, "family")}
    return Chart(_template(5 if wide else 2), _title(table, timing), {"bars": bars, "ends": ends, "heads": heads}, params)


def _family(module: str) -> str:
    return MODULES[module][0] if module in MODULES else module if module in PARTS else VISION


def _by_module(estimate: Estimate, timing: Timing | None) -> dict[tuple[str, str], Row]:
    """FLOPs, bytes and seconds by stage and module."""
    table = {key: {name: row[name] for name in ("total_flops", "io_bytes")} for key, row in estimate.module_numbers.items()}
    if timing:
        keys = estimate.keys("module")
        for key, spent in zip(keys, timing.expected_table(keys)["expected_seconds"][0].tolist(), strict=True):
            table[key]["expected_seconds"] = spent
        whole = float(timing.lane_seconds("decode", "expected")[0]) if "decode" in estimate.chosen_stages else 0.0
        rest = whole - sum(row["expected_seconds"] for (stage, _), row in table.items() if stage == "decode")
        table["decode", BETWEEN] = {"total_flops": 0, "io_bytes": 0, "expected_seconds": rest if rest > 1e-6 * whole else 0.0}
    return table


@cache
def _template(columns: int) -> Template:
    bars = StageBars(headed_axis(head="''"), {"axis": None, "scale": alt.Scale(domain=[0, SPAN], nice=False)})
    columns = alt.ExprRef(f"narrow ? 1 : {columns}")
    colour = painted("family", PARTS, listed("families", orient="bottom", columns=columns, symbolType="square"))
    about = tips(family="part of the model", phase="when", measure="of", part="share", value="value")
    segments = bars.segments("bars", colour, about, start="start", band=0.82)
    return compiled(segments, bars.inside("part", str(SPAN)), bars.words(dx=6), bars.headings(), height=alt.Step(22))


def _title(table: Mapping[tuple[str, str], Row], timing: Timing | None) -> Title:
    """The module with the largest share of each phase's time (of its bytes, without a device)."""
    measure = "expected_seconds" if timing else "io_bytes"
    names = ("TTFT", "TPOT") if timing else ("the bytes to the first token", "those of an output token")
    parts = []
    for name, stages in zip(names, PHASES.values(), strict=True):
        rows = {module: row[measure] for (stage, module), row in table.items() if stage in stages}
        if whole := sum(rows.values()):
            widest = max(rows, key=rows.get)
            parts.append(f"{module_name(widest)}: {share(rows[widest], whole)} of {name}")
    where = f"Expected times on {timing.hardware.label}" if timing else "No times, so by DRAM traffic"
    finding = "; ".join(parts) or "Nothing to do"
    return title(finding[0].upper() + finding[1:], f"{where}; every bar is 100 %", width=48)
