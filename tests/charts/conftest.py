"""One page in every attention mode, on one device: what most charts are drawn of."""

import numpy as np
import pytest

import ocr_flops as of

MODES = ("eager", "sdpa", "flash")


@pytest.fixture(scope="session")
def l4():
    return of.load_hardware("l4")


@pytest.fixture(scope="session")
def by_mode(model):
    """Estimates of a batch of pages by attention mode."""
    page = of.Workload.from_image(1654, 2339, "gundam", batch_size=8)
    return {mode: of.estimate(model, page, mode) for mode in MODES}


@pytest.fixture(scope="session")
def timings(by_mode, l4):
    return {mode: one.on(l4) for mode, one in by_mode.items()}


@pytest.fixture(scope="session")
def idle(model, l4):
    """A page without output tokens on a device."""
    return of.estimate(model, of.Workload.from_image(1654, 2339, "tiny", output_tokens=0), "sdpa").on(l4)


@pytest.fixture(scope="session")
def tiles(model):
    """A sweep over three grids."""
    return of.sweep(model, of.Workload.from_grid(np.array([1, 2, 3]), np.array([1, 1, 2])), list(MODES))
