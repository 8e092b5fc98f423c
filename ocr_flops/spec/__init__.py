"""Hydra composition -> frozen specs: each `load_*` composes `configs/config.yaml` with overrides and checks every key and type.

Nothing of Hydra or OmegaConf leaves `compose.py`.
"""

from ocr_flops.spec.catalog import config_dir, names, notebook_dir
from ocr_flops.spec.groups import load_attention, load_engine, load_hardware, load_mode, load_model, modes
from ocr_flops.spec.overrides import GROUPS
from ocr_flops.spec.overrides import group_of as choice
from ocr_flops.spec.run_spec import RunSpec, WorkloadKeys, compose_sweep, load_run, read_run, read_workload

__all__ = [
    "GROUPS",
    "RunSpec",
    "WorkloadKeys",
    "choice",
    "compose_sweep",
    "config_dir",
    "load_attention",
    "load_engine",
    "load_hardware",
    "load_mode",
    "load_model",
    "load_run",
    "modes",
    "names",
    "notebook_dir",
    "read_run",
    "read_workload",
]
