"""Trains grids of small transformers and fits their scaling laws."""

__version__ = "0.1.0"
