"""Sweeps: lists of pages times lists and ranges of any setting, computed in parts, into one folder per sweep."""
