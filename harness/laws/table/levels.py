"""Which rows have one shape, and which have one token budget up to rounding to whole steps."""

import numpy as np
import pandas as pd

from harness.laws.forms import Array
from harness.laws.noise.noise import Labels

# Budgets are rounded to whole steps of a batch that differs between shapes; true budgets lie further apart.
SAME_BUDGET = np.log(1.05)
SAME_PARAMS = 1e-6


def shape_labels(frame: pd.DataFrame, params_R: Array) -> Labels:
    """One label a shape, ascending in params: by width and depth where the table has them, else by params."""
    if {"width", "depth"} <= set(frame.columns):
        names_R = frame["width"].map(str) + " " + frame["depth"].map(str)
        labels_R = np.unique(names_R, return_inverse=True)[1]
    else:
        labels_R = grouped(params_R, SAME_PARAMS)
    mean_G = np.bincount(labels_R, weights=np.log(params_R)) / np.bincount(labels_R)
    return np.argsort(np.argsort(mean_G))[labels_R]


def budget_labels(tokens_R: Array) -> Labels:
    """One label a token budget, ascending."""
    return grouped(tokens_R, SAME_BUDGET)


def grouped(values_R: Array, width: float) -> Labels:
    """Labels of values, ascending: each level holds what lies within `width` in log above its least value."""
    order_R = np.argsort(values_R, kind="stable")
    sorted_R = np.log(values_R[order_R])
    starts = [0]
    while (following := int(np.searchsorted(sorted_R, sorted_R[starts[-1]] + width, "right"))) < len(sorted_R):
        starts.append(following)
    labels_R = np.empty(len(values_R), np.intp)
    labels_R[order_R] = np.searchsorted(starts, np.arange(len(values_R)), "right") - 1
    return labels_R


def level_values(values_R: Array, labels_R: Labels) -> Array:
    """The geometric mean of each level, (G,)."""
    return np.exp(np.bincount(labels_R, weights=np.log(values_R)) / np.bincount(labels_R))
