"""Where the numbers of a fit come from, for its file, and where that may be written."""

import math
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy

from harness import __version__
from harness.errors import UserError
from harness.files import make_folder
from harness.laws.fit import Fit
from harness.laws.table.rows import cluster_column
from harness.laws.table.table import Table


def source_of(table: Table, fit: Fit) -> dict[str, Any]:
    """What was read, with its digests, and which rows and columns of it were fitted."""
    return {
        "path": table.source,
        "sha256": table.sha256,
        "sources": table.sources(),
        "rows": table.rows_read,
        "rows_used": len(fit.rows),
        "excluded": table.excluded,
        "filter": table.filter,
        "account": table.account,
        "columns": asdict(fit.columns) | {"cluster": cluster_column(table, fit.columns)},
    }


def versions() -> dict[str, str]:
    """Of the harness and of what its numbers hang on."""
    return {
        "harness": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pandas": pd.__version__,
    }


def plain(value: Any) -> Any:
    """Numbers, lists and text that JSON can say; what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def check_out(path: Path) -> None:
    """Raises UserError where out= is no file in an existing folder that can be written to."""
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"out={path} is not a file in an existing folder: name one, or make the folder")
    try:
        make_folder(path.parent)
    except UserError as error:
        raise UserError(f"out={path} lies in a folder that cannot be written to: name a file elsewhere") from error
