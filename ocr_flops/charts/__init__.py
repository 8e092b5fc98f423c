"""Frames -> Altair charts: pure functions, one file a subject."""

from ocr_flops.charts.chart import Chart
from ocr_flops.charts.comparison import comparison
from ocr_flops.charts.flops import flops_by_module, flops_by_tokens
from ocr_flops.charts.memory import growth, memory
from ocr_flops.charts.modes import ModePages, accuracy_by_mode, mode_label
from ocr_flops.charts.roofline import roofline
from ocr_flops.charts.savings import savings
from ocr_flops.charts.savings_by_tiles import savings_by_tiles
from ocr_flops.charts.shares import shares
from ocr_flops.charts.throughput import throughput
from ocr_flops.charts.tiling import tiling_picture
from ocr_flops.charts.timeline import stage_timeline
from ocr_flops.charts.times import time_by_module
