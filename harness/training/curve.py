"""curve.jsonl: one row a log point, the truth behind every curve."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.files import file_error, write_atomically


class Curve:
    """The curve of one run, appended to one or more files alike."""

    def __init__(self, paths: Sequence[Path], rows: list[dict[str, Any]]):
        """Starts all `paths` anew with `rows`, those before the step at which training goes on."""
        self.paths = paths
        text = "".join(json.dumps(row) + "\n" for row in rows)
        for path in paths:
            write_atomically(path, text)

    def append(self, row: dict[str, Any]) -> None:
        """Raises UserError where the disk is full."""
        line = json.dumps(row) + "\n"
        for path in self.paths:
            try:
                with open(path, "a") as file:
                    file.write(line)
            except OSError as error:
                raise file_error(path, error) from error


def read_curve(path: Path, up_to_step: int) -> list[dict[str, Any]]:
    """The rows of a curve up to a step; a torn last line is left out."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return [row for row in rows if row["step"] <= up_to_step]
