"""Estimates calibrated by records: what a device really reaches of its ceilings, fitted to what was measured on it."""

from ocr_flops.calibration.calibrate import calibrate
from ocr_flops.calibration.calibrated import Banded, Calibrated, Reached, Uncalibrated
from ocr_flops.calibration.calibration import Calibration
from ocr_flops.calibration.matching import overlay

__all__ = ["Banded", "Calibrated", "Calibration", "Reached", "Uncalibrated", "calibrate", "overlay"]
