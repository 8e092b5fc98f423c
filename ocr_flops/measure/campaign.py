"""The campaign as a Hydra app: `python -m ocr_flops.measure.campaign --multirun` measures all that is not recorded yet."""

from __future__ import annotations

import logging

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ocr_flops.spec.catalog import config_dir


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="campaign")
def main(config: DictConfig) -> dict[str, int]:
    """One job; returns how many points it measured, skipped and saw fail."""
    from ocr_flops.errors import SpecError
    from ocr_flops.evidence.records.campaign import run_job

    try:
        outcome = run_job(OmegaConf.to_container(config, resolve=True), HydraConfig.get().overrides.task)
    except SpecError as problem:
        raise SpecError(str(problem)) from None  # without where it was raised, and fit to be sent from a launcher's process to another
    logging.getLogger("ocr_flops.evidence.records.campaign").info("measured %d, recorded before %d, failed %d", *outcome)
    return outcome._asdict()


if __name__ == "__main__":
    main()
