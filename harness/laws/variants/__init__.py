"""Variants of training side by side: which rows are of which, one law for all, and the compute that one is worth."""
