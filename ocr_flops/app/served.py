"""What is served on the device of a setting and on others, for the tab Serving and for Jupyter."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ocr_flops.app.setting import FIGURES
from ocr_flops.app.views import Results
from ocr_flops.charts import Chart
from ocr_flops.charts.serving import serving_charts
from ocr_flops.errors import SpecError
from ocr_flops.reports.images import provenance
from ocr_flops.reports.serving import describe_serving
from ocr_flops.spec.catalog import load_hardware
from ocr_flops.timing.serving import targets
from ocr_flops.timing.serving.result import Serving
from ocr_flops.timing.serving.steady import ENGINE, Server

FLYING, RATE = "requests in flight", "requests a second"
OWN = "own"  # of an option: what the engine chooses for the device
BUDGETS = tuple(map(str, targets.BUDGETS))
MOST_WORKERS, MOST_REPLICAS, MOST_SECONDS = 256, 100_000, 1000


@dataclass(frozen=True)
class Load:
    """What the tab's controls say.

    Args:
        engine: that serves.
        load: `FLYING` or `RATE`: which of the next two counts.
        concurrency, rate, replicas: as of `serving`.
        others: GPUs beside the sidebar's, by names with commas.
        max_num_batched_tokens: tokens of a step, or `OWN`.
        preprocess_workers, ngram_ban: as of `ServingSpec`; None for what the engine chooses.
        first_token_seconds: that 95 of 100 requests are promised.
    """

    engine: str = ENGINE
    load: str = FLYING
    concurrency: int = 64
    rate: float = 1.0
    replicas: int = 1
    others: str = "a100_40gb, h100_sxm"
    max_num_batched_tokens: str = OWN
    preprocess_workers: int = 1
    ngram_ban: bool | None = None
    first_token_seconds: float = 5.0


class Served(NamedTuple):
    """Engines on the devices that run it, the load chosen on the first, and why the others do not run it."""

    servers: list[Server]
    chosen: Serving
    refused: list[str]
    replicas: int
    wanted: dict[str, Any]


def serve(results: Results, wanted: dict[str, Any]) -> Served | SpecError:
    """The sidebar's page under the load that is asked for; why there is no answer, where there is none."""
    try:
        return _serve(results, wanted)
    except SpecError as error:
        return error


def _serve(results: Results, wanted: dict[str, Any]) -> Served:
    setting = replace(results.setting, engine=wanted["engine"], batch_size=1)
    if setting.instead:
        raise SpecError(f"model: no engine that serves is known to run {setting.model_spec.label}")
    options = {"preprocess_workers": wanted["preprocess_workers"], "ngram_ban": wanted["ngram_ban"]}
    if wanted["max_num_batched_tokens"] != OWN:
        options["max_num_batched_tokens"] = int(wanted["max_num_batched_tokens"])
    servers, refused = [], []
    for name in dict.fromkeys([setting.gpu, *filter(None, (one.strip() for one in wanted["others"].split(",")))]):
        own = setting if name == setting.gpu else replace(setting, gpu=name, **dict.fromkeys(FIGURES))
        try:
            device = own.device if name == setting.gpu else load_hardware(name)
            servers.append(results.serve(own, device, **options))
        except SpecError as error:
            refused.append(str(error))
    if not servers or servers[0].hardware.name != setting.gpu:
        raise SpecError(refused[0])
    load = {"concurrency": wanted["concurrency"]} if wanted["load"] == FLYING else {"rate": wanted["rate"]}
    return Served(servers, servers[0].solve(**load, replicas=wanted["replicas"]), refused, wanted["replicas"], wanted)


def provenance_of(found: Served | SpecError | None) -> str:
    """What a load's charts say of themselves where they are taken away; "" without one."""
    return provenance(describe_serving(found.chosen)) if isinstance(found, Served) else ""


def drawn(found: Served | SpecError | None) -> tuple[Chart, ...]:
    """The charts of a load; none without an answer."""
    return tuple(serving_charts(found.servers, found.chosen).values()) if isinstance(found, Served) else ()
