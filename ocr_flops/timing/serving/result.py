"""What an engine delivers under a load, with the range of every figure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ocr_flops.spec.host import Ranged
from ocr_flops.spec.serving import ServingSpec
from ocr_flops.spec.specs import HardwareSpec
from ocr_flops.timing.serving.memory import Pool
from ocr_flops.units import ENDS, count

if TYPE_CHECKING:
    import polars as pl

PARTS = ("vision", "prefill", "decode", "host")
CACHE, SEQUENCES, BUDGET, CUTTING = "cache", "sequences", "token budget", "preprocessing"  # limits beside parts of a step


@dataclass(frozen=True, eq=False, repr=False)
class Serving:
    """What an engine delivers; figures with a range are numbers, or columns where several concurrencies or rates were asked for.

    Args:
        hardware: the device of one replica.
        options, pool: of the engine on that device.
        replicas: copies of the model, each on a device of its own.
        concurrency: requests in flight on each replica: at most `max_concurrency`; of a rate their mean, with those that wait.
        asked_concurrency: what was asked for; None for an arrival rate.
        rate: requests that arrive in a second at all replicas; None for a concurrency.
        is_stable: False where more arrive than can be served: the queue grows without end, and throughput is the capacity.
        max_concurrency: requests of this kind that run at once on a replica, by the cache and by `max_num_seqs`.
        kv_capacity_tokens: tokens that a replica's cache holds.
        kv_use_share: mean part of it that is in use.
        step_seconds: one step of the engine.
        ttft_seconds, tpot_seconds: mean time to the first token, from the request on, and mean time of each later one.
        output_tokens_per_second, requests_per_second, pages_per_second, pages_per_day: of all replicas.
        capacity_per_second: the most requests a second that all replicas serve.
        device_busy_share: part of the time in which kernels run.
        step_parts: seconds of a step by `PARTS`, as expected: [part, point].
        limited_by: what more throughput would need more of.
        is_rough: whether pages meet in few and long steps, wait to be cut, fill the cache, have prompts above the token budget, or arrive
            at near the capacity, so that this steady state may be off by tens of percent, waiting for the first token in a full cache by
            far more; the simulator is not.
        time_basis: what times rest on.
    """

    engine: str
    hardware: HardwareSpec
    options: ServingSpec
    pool: Pool
    replicas: int
    concurrency: Any
    asked_concurrency: Any
    rate: Any
    is_stable: Any
    max_concurrency: int
    kv_capacity_tokens: int
    kv_use_share: Any
    step_seconds: Ranged
    ttft_seconds: Ranged
    tpot_seconds: Ranged
    output_tokens_per_second: Ranged
    requests_per_second: Ranged
    pages_per_second: Ranged
    pages_per_day: Ranged
    capacity_per_second: Ranged
    device_busy_share: Any
    step_parts: np.ndarray
    limited_by: Any
    is_rough: Any
    time_basis: str

    def __repr__(self) -> str:
        days = np.atleast_1d(self.pages_per_day.value)
        loads = f"{len(days):,} loads" if len(days) > 1 else f"{count(days[0])} pages a day"
        return f"Serving({self.engine} on {self.replicas} x {self.hardware.title}: {loads})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.frame._repr_html_()}"

    def columns(self) -> dict[str, Any]:
        """All figures by name, a range as three: "ttft_seconds", "ttft_low_seconds", "ttft_high_seconds"."""
        found: dict[str, Any] = {"engine": self.engine, "hardware": self.hardware.name, "replicas": self.replicas}
        skipped = {*found, "options", "pool", "step_parts", "time_basis"}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Ranged):
                stem, unit = (name.removesuffix("_seconds"), "_seconds") if name.endswith("_seconds") else (name, "")
                found |= {f"{stem}{part}{unit}": one for part, one in zip(ENDS, value[:3], strict=True)}
            elif name not in skipped:
                found[name] = value
        found |= {f"step_{part}_seconds": seconds for part, seconds in zip(PARTS, self.step_parts, strict=True)}
        return found | {name: getattr(self.options, name) for name in ("max_num_batched_tokens", "max_num_seqs", "gpu_memory_utilization")}

    @property
    def frame(self) -> pl.DataFrame:
        """A row for every concurrency or rate."""
        import polars as pl

        found = self.columns()
        points = max(len(value) if isinstance(value, np.ndarray) else 1 for value in found.values())
        full = {name: value if isinstance(value, np.ndarray) else [value] * points for name, value in found.items()}
        return pl.DataFrame(full, nan_to_null=True)
