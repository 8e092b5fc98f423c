"""Estimates calibrated by records: what a device really reaches of its ceilings, fitted to what was measured on it."""

from ocr_flops.evidence.calibration.calibrate import calibrate
from ocr_flops.evidence.calibration.result import CalibratedEstimate, Calibration, Efficiency, Interval, Uncalibrated
