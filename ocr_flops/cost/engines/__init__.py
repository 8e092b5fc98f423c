"""Engines: what a piece of software executes to run a model, besides the mathematics; NAME is defined in NAME.py and in configs/engine."""
