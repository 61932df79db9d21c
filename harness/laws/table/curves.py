"""curve.jsonl: the training loss of one run, as rows of a table may need it."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

from harness.laws.forms import Array

# A curve that ends this near to the tokens of its cell is whole.
WHOLE = 0.999


def read_curve(path: Path) -> pd.DataFrame:
    """phase, tokens and train_loss of a curve.jsonl; a torn last line and rows without a finite loss are left out."""
    rows = []
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            break
        loss = row.get("train_loss")
        if isinstance(loss, float | int) and math.isfinite(loss) and row["tokens"] > 0:
            rows.append((row["phase"], row["tokens"], loss))
    return pd.DataFrame(rows, columns=["phase", "tokens", "train_loss"])


def window_means(curve: pd.DataFrame, edges_X: Array) -> Array | None:
    """The mean training loss between consecutive edges, in tokens, (X - 1,); None where the curve ends before the last.

    A row of a curve is the mean over the steps since the row before it.
    """
    tokens_T = np.concatenate([[0.0], curve.tokens.to_numpy(float)])
    if tokens_T[-1] < WHOLE * edges_X[-1] or (np.diff(tokens_T) <= 0).any():
        return None
    sum_T = np.concatenate([[0.0], np.cumsum(curve.train_loss.to_numpy(float) * np.diff(tokens_T))])
    last_X = np.minimum(edges_X, tokens_T[-1])
    means: Array = np.diff(np.interp(last_X, tokens_T, sum_T)) / np.diff(last_X)
    return means
