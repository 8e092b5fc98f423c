"""Runs the real model and reports what PyTorch counts: the only part of the package that imports torch and transformers.

`python -m ocr_flops.measure` is the worker: one JSON request on stdin, JSON lines on stdout (see `protocol.py`).
"""
