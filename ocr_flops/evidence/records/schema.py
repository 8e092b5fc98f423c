"""The schema of a record, one JSON object a run: what a reader relies on, checked by msgspec.

What is in the file beside these fields is kept there for whoever reads it alone, years later:
- "schema", "key" (see `record.point_key`), "started" (ISO 8601, UTC)
- "asked": also runs, warmup, passes, snapshot and checkpoint (names of the folders), image (whether one was given)
- "model": also "towers" {tower: dimensions}
- "ran": also driver, clocks and everything else that the worker said of itself (see `measure/protocol.py`)
- "hardware": the dense peaks that the figures are held against
- "stages": the worker's stages as they came: raw seconds of every run, FLOPs, memory
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from ocr_flops.measure.failures import Failure

SCHEMA = 1
DONE, FAILED = "done", "failed"
VERSIONS = ("torch", "transformers", "ocr_flops")

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Size = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Quantity = Annotated[float, Meta(ge=0)]
Stage = Literal["vision", "prefill", "decode"]


class Settings(Struct):
    """How the model was run, "asked" in the file."""

    engine: str
    attention: Annotated[dict[str, str], Meta(min_length=1)]  # by tower: sam, clip, decoder
    experts: str | None
    dtype: str
    device: str
    prefill_logits: str
    cache: str
    stages: tuple[Stage, ...]


class Named(Struct):
    """A model or a device by the name of its config."""

    name: str | None


class RecordedPoint(Struct):
    """The workload; `mode` is null where the grid is of no mode's."""

    mode: str | None
    image_width_px: Count
    image_height_px: Count
    global_px: Size
    tile_px: Count
    columns: Size
    rows: Size
    tiles: Count
    image_tokens: Count
    prompt_tokens: Count
    context_tokens: Count
    output_tokens: Count
    batch_size: Size


POINT_NUMBERS = RecordedPoint.__struct_fields__[1:]  # of a request of one page


class RecordedRun(Struct):
    """What the worker said of itself."""

    device_name: str | None = None
    experts: str | None = None
    weights: str | None = None
    torch: str | None = None
    transformers: str | None = None
    ocr_flops: str | None = None


class Figures(Struct):
    """Figures of a stage, or of a module in it; null where they are not known. See `figures.derive_figures`."""

    runs: Count | None = None
    median_seconds: Quantity | None = None
    spread_seconds: Quantity | None = None
    min_seconds: Quantity | None = None
    torch_flops_counted: Count | None = None
    peak_allocated_bytes: Count | None = None
    peak_reserved_bytes: Count | None = None
    mfu: Quantity | None = None
    bandwidth_use: Quantity | None = None
    io_bytes: Count | None = None
    io_bytes_source: str | None = None
    analytic_torch_flops: Count | None = None
    peak_source: str | None = None
    experts_hit: Count | None = None


class StageFigures(Figures, kw_only=True):
    """Figures of a stage, and of each of its modules."""

    modules: dict[str, Figures]


class Record(Struct):
    """A record as it is read, from a file of its id's name.

    Args:
        settings, model, workload, ran: what was to run and what ran; `ran` is null where the worker did not get so far.
        hardware: the config of the device's figures; null where there is none.
        stages: see above.
        key: equal in records of the same measurement.
    """

    record_id: str
    state: Literal["done", "failed"]
    finished: str
    host: str
    settings: Settings = field(name="asked")
    model: Named
    workload: RecordedPoint
    stages: dict[str, Any]
    derived: dict[Stage, StageFigures]
    ran: RecordedRun | None = None
    hardware: Named | None = None
    failure: Failure | None = None
    key: str | None = None
