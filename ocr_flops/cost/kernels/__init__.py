"""Attention kernels: what runs between the projections of query, key and value and the output projection; NAME is defined in NAME.py."""
