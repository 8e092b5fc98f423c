"""The result of a verification: summed up, printed, and kept as the evidence that a version ships with."""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ocr_flops import __version__
from ocr_flops.cost.models.learned import describe_learned
from ocr_flops.cost.run_config import RunConfig
from ocr_flops.evidence.records.store import check_not_installed
from ocr_flops.evidence.verify.compare import FLOPS, LEVELS, WHAT
from ocr_flops.files import write_whole
from ocr_flops.measure.events import Result
from ocr_flops.measure.plan import POINT_FIELDS, tower_dimensions
from ocr_flops.measure.protocol import REMOTE_ATTENTION
from ocr_flops.spec.specs import STAGES, ModelSpec

SETTING = ("engine", "attention", "dtype", "cache", "prefill_logits")
POINT = ("kind", *SETTING, *POINT_FIELDS)
RANGES = ("global_px", "batch_size", "prompt_tokens", "output_tokens")  # of the points: all values of each are kept
DATA = Path(__file__).parent / "data"
SHIPPED = {"transformers": DATA / "verification.json", "remote_code": DATA / "remote_code.json"}


class Verified(NamedTuple):
    """What of a setting was compared with the real model.

    Args:
        numbers, different: how many numbers, and how many of them differed.
        points: at which points, in words.
        levels: numbers by what was compared (keys of `WHAT`), one for each of `LEVELS`.
        basis: when, and with which versions, in words.
    """

    numbers: int
    different: int
    points: str
    levels: dict[str, list[int]]
    basis: str

    @property
    def verdict(self) -> str:
        """Whether all are equal, in words."""
        return f"{self.different:,} DIFFER" if self.different else "all equal, as integers"


def add_point(numbers: pl.DataFrame, result: Result) -> pl.DataFrame:
    """Put how a result was run, and its point, before its rows; what a trace counted in the same pass is of kind "count".

    Args:
        numbers: of `compare_numbers`.
        result: what they were compared with.
    """
    attention = _name_attention(result.ran["engine"], result.ran["attention"])
    values = result.ran | asdict(result.workload) | {"attention": attention, "cache": "dynamic"}  # the cache that both engines run
    kind = pl.when(pl.col("column") == FLOPS).then(pl.lit("count")).otherwise(pl.lit(values["kind"]))
    return numbers.select(kind.alias("kind"), *(pl.lit(values[name]).alias(name) for name in POINT[1:]), pl.all())


def _name_attention(engine: str, kernels: Mapping[str, str]) -> str:
    """The kernel of all towers; "vendor" for those of the published code; "mixed" otherwise."""
    if len(set(kernels.values())) == 1:
        return next(iter(kernels.values()))
    return "vendor" if engine == "remote_code" and dict(kernels) == REMOTE_ATTENTION else "mixed"


def summarise(frame: pl.DataFrame) -> pl.DataFrame:
    """Return, per kind, attention mode, level, stage, module and column of `add_point`'s rows: numbers compared, both totals, and the
    largest difference of any. The layers of a stage are one row together."""
    together = pl.when(pl.col("level") == "layer").then(pl.lit("every layer")).otherwise("module").alias("module")
    return (
        frame.with_columns(together)
        .group_by("kind", "attention", "level", "stage", "module", "column", maintain_order=True)
        .agg(pl.len().alias("points"), pl.col("measured", "analytic").sum(), largest_difference=pl.col("difference").abs().max())
    )


def shown_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """What is shown of the rows compared: the numbers of one point, the largest differences of several."""
    points = count_points(frame)
    if points == 1 and set(frame["level"]) == {"layer"}:
        return frame.select("kind", "attention", "stage", "module", "layer", "column", "measured", "analytic", "difference")
    shown = summarise(frame).rename({"points": "numbers"})
    if points == 1:  # measured and analytic beside each other; sums over many points tell less
        return shown.drop("numbers").rename({"largest_difference": "difference"})
    return shown.group_by("kind", "attention", "level", "stage", "column", maintain_order=True).agg(
        pl.col("numbers").sum(), pl.col("largest_difference").max()
    )


def count_points(frame: pl.DataFrame) -> int:
    """Points that were compared, however often each ran."""
    return frame.select(POINT[1:]).unique().height


def describe_differences(frame: pl.DataFrame) -> list[str]:
    """A line for each number that differs, which says where."""
    return [_describe_difference(row) for row in frame.filter(pl.col("difference") != 0).iter_rows(named=True)]


def _describe_difference(row: dict[str, Any]) -> str:
    """Say in a line where a number differs: stage, module and layer, column, both values, the difference, and the point."""
    layer = "" if row["layer"] is None else f" layer {row['layer']}"
    return (
        f"differs: {row['stage']} {row['module']}{layer} {row['column']}: measured {row['measured']}, analytic {row['analytic']}, "
        f"difference {row['difference']:+} ({row['kind']} {row['attention']} {row['prefill_logits']} logits {row['dtype']}, "
        f"{row['global_px']} px view, {row['columns']} x {row['rows']} grid of {row['tile_px']} px, {row['prompt_tokens']} prompt + "
        f"{row['output_tokens']} output tokens, batch {row['batch_size']})"
    )


def _settings(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """How many numbers of each setting were compared, by what and level, and the range of points that they are of."""
    found = []
    for key, rows in frame.group_by(SETTING, maintain_order=True):
        points = rows.select(POINT_FIELDS).unique()
        grids = points.select("columns", "rows").unique().sort(pl.col("columns") * pl.col("rows"), "columns")
        levels = {
            what: [rows.filter(pl.col("column").is_in(columns), level=level).height for level in LEVELS] for what, columns in WHAT.items()
        }
        found.append(
            {
                **dict(zip(SETTING, key, strict=True)),
                "numbers": rows.height,
                "different": rows.filter(pl.col("difference") != 0).height,
                "points": points.height,
                "grids": grids.height,
                "largest_grid": grids.row(-1),
                **{name: points[name].unique().sort().to_list() for name in RANGES},
                "levels": levels,
            }
        )
    return found


def write_verification(
    frame: pl.DataFrame, ran: dict[str, Any], model: ModelSpec, snapshot: str | None = None, path: Path | None = None
) -> None:
    """Write the summary of a verification, with the versions that ran, as the evidence that the package ships.

    Args:
        frame: as in `summarise`, of one engine.
        ran: of any result: engine, versions and device.
        model: the dimensions that ran.
        snapshot: the folder of the published code, whose files are named by their SHA-256.
        path: where to; written whole or not at all. By default that of the engine, in `SHIPPED`.
    """
    versions = {name: ran[name] for name in ("torch", "transformers", "device", "weights")} | {"ocr_flops": __version__}
    head = {"versions": versions, "date": date.today().isoformat(), "numbers": frame.height}
    if snapshot is not None:
        files = [file for file in sorted(Path(snapshot).iterdir()) if file.suffix == ".py" or file.name == "config.json"]
        head["code"] = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    head |= {"towers": tower_dimensions(model), "settings": _settings(frame)}
    write_evidence(path or SHIPPED[ran["engine"]], head, "rows", summarise(frame).to_dicts())


def read_verification(engine: str = "transformers", path: Path | None = None) -> dict[str, Any] | None:
    """Return the verification that this version was released with; None where none of the engine is shipped.

    Returns:
        versions, date, how many numbers, "code" (SHA-256 of the published code's files), "towers" (the dimensions that ran), "settings"
        (a row for each key of `SETTING`, with its ranges) and the rows of `summarise`.
    """
    path = path or SHIPPED.get(engine)
    return json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else None


@functools.cache
def find_compared(config: RunConfig) -> Verified | None:
    """Return what of exactly this setting (engine, attention, dtype, cache, logits and dimensions) was compared before release, if anything
    was."""
    record = read_verification(config.engine.name)
    if record is None or record["towers"] != json.loads(json.dumps(tower_dimensions(config.model))):
        return None
    engine = config.engine.name
    key = (engine, _name_attention(engine, dict(config.attention.kernels)), config.dtype, config.cache, config.prefill_logits)
    row = next((row for row in record["settings"] if tuple(row[name] for name in SETTING) == key), None)
    if row is None:
        return None
    ends = ((row[name][0], row[name][-1]) for name in RANGES)
    views, batch, prompt, output = (" to ".join(map(str, dict.fromkeys(pair))) for pair in ends)
    points = (
        f"{row['points']} points: views of {views} px, {row['grids']} grids up to {' x '.join(map(str, row['largest_grid']))}, "
        f"batch {batch}, {prompt} prompt and {output} output tokens"
    )
    basis = "{date}, transformers {versions[transformers]}, torch {versions[torch]}, {versions[device]} device".format(**record)
    return Verified(row["numbers"], row["different"], points, row["levels"], basis)


def describe_points(compared: Mapping[str, Verified]) -> str:
    """The points of settings together, in words; what differs between them is said of each.

    Args:
        compared: by the name of the setting.
    """
    parts = zip(*(one.points.split(", ") for one in compared.values()), strict=True)
    return ", ".join(
        each[0] if len(set(each)) == 1 else ", ".join(f"{part} ({name})" for name, part in zip(compared, each, strict=True))
        for each in parts
    )


def describe_compared(config: RunConfig, stages: Iterable[str] = STAGES) -> str:
    """Say in words what of a setting's stages was compared with the real model, at which points, or that nothing was."""
    if found := find_compared(config):
        return f"{found.numbers:,} numbers compared at {found.points}: {found.verdict}"
    if config.model.learned:
        return describe_learned(config.model)
    modelled = [stage for stage in stages if config.evidence(stage) == "modelled"]
    return f"not compared ({', '.join(modelled)} modelled)" if modelled else "not compared in this installation"


def write_evidence(path: Path, head: dict[str, Any], name: str, rows: list[dict[str, Any]]) -> None:
    """Write evidence as JSON, a row a line under `name` after what `head` has; a SpecError says why it cannot be written."""
    check_not_installed(path, "--record")
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_whole(path, f'{json.dumps(head).removesuffix("}")}, "{name}": [\n{lines}\n]}}\n', "--record")
