"""What a paper quotes of a fit, from hand-made studies with round numbers."""

from __future__ import annotations

import csv
import io
import re

import pandas as pd
import pytest
from synthetic_sweep import hand_study, write_sweep

from harness.report.inputs import read
from harness.report.page import write_report
from harness.report.paper import FILES, paper


@pytest.fixture(scope="module")
def quoted(finished) -> dict[str, str]:
    return {name: (finished / "paper" / name).read_text() for name in FILES}


def papers(directory, rows, name="synthetic", certified=True, **changes) -> dict[str, str]:
    study = hand_study(pd.DataFrame(rows), certified=certified) | changes
    return paper(read(write_sweep(directory / "sweep", rows, name=name, study=study)))


def cells_of(text: str) -> dict[str, str]:
    """The row of a LaTeX table by its header, both split at the ampersands that are not escaped."""
    lines = text.splitlines()
    header = lines[lines.index(r"% \toprule") + 1]
    row = next(line for line in lines if not line.startswith("%"))
    assert header.endswith(r" \\") and row.endswith(r" \\")
    names, cells = (re.split(r"(?<!\\)&", line.removeprefix("% ")[:-3]) for line in (header, row))
    return dict(zip((name.strip() for name in names), (cell.strip() for cell in cells), strict=True))


def test_the_latex_row_has_the_numbers_with_their_intervals(quoted):
    cells = cells_of(quoted["row.tex"])
    # alpha .38 with a half-width of .035, a .5476 with .031, E 2.1 with .11, B 805 with 260.
    assert cells[r"$\alpha$"] == r"${0.380}\ [0.345, 0.415]$"
    assert cells["$a$"] == r"${0.548}\ [0.517, 0.579]$"
    assert cells["$E$"] == r"${2.10}\ [1.99, 2.21]$"
    assert cells["$B$"] == r"${805}\ [545, 1065]$"
    assert cells["$N$"] == r"params\_with\_head"
    assert cells["Certified"] == "yes"
    lines = quoted["row.tex"].splitlines()
    assert [line for line in lines if not line.startswith("%")] == [lines[-3]]
    assert [lines[2], lines[3], lines[5]] == [
        rf"% \begin{{tabular}}{{{'l' * len(cells)}}}",
        r"% \toprule",
        r"% \midrule",
    ]


def test_the_csv_row_reads_back(quoted):
    header, *rows = list(csv.reader(io.StringIO(quoted["row.csv"])))
    assert len(rows) == 1 and len(header) == len(set(header)) == len(rows[0])
    row = dict(zip(header, rows[0], strict=True))
    assert row["certified"] == "True" and row["reasons"] == "" and row["stale"] == "False"
    assert (float(row["alpha"]), float(row["alpha_low"]), float(row["alpha_high"])) == pytest.approx(
        (0.38, 0.345, 0.415)
    )
    assert (row["loss"], row["delta"], row["rows_used"], row["bootstrap"]) == ("log_mse", "0.001", "31", "400")
    assert float(row["seed_sd_nats"]) == 0.0041


def test_the_paragraph_states_every_choice(quoted):
    text = " ".join(quoted["methods.txt"].split())
    for part in (
        "The law chinchilla, L = E + A / N^alpha + B / D^beta; L = loss, N = params_with_head, D = tokens, is fitted "
        "to 31 of the 31 rows of the run table of the sweep synthetic (SHA-256 ",
        "filter none); it is the law that the sweep's configuration states.",
        "31 finished, 1 diverged. The model is gpt, parametrization sp, sequences of 128, vocabulary 1024.",
        "The command is python scripts/train.py -m +sweep=cpu, the code version 1a2b3c4.",
        "N is the column params_with_head (non-embedding parameters and vocabulary x width for the head), D the column "
        "tokens, L the column loss.",
        "The fit minimises the sum over rows of the squared log residual; all rows weigh the same.",
        "from 30 start points end, at 29 of them, in the same minimum",
        "relative gradient is 2e-9 (tolerance 1e-8), the rank of the curvature 5",
        "the fit is certified",
        "Intervals are 95 %: parametric by trunk, the runs named by the column trunk (bootstrap 400, seed 0).",
        "standard deviation of 0.0041 nats (8 degrees of freedom)",
        "Held out, the largest shape from the other shapes (4 cells): mean relative error 0.",
        "alpha = 0.380 (0.345 to 0.415)",
        "Versions: harness 0.1.0, scipy 1.16.0, torch 2.13.0.",
        "No row is left out.",
    ):
        assert part in text, part
    assert max(map(len, quoted["methods.txt"].splitlines())) <= 100


def test_not_certified_is_said_in_each_of_the_three(tmp_path, rows):
    found = papers(tmp_path, rows, certified=False)
    why = "NOT certified, do not quote: the exponents are not identified by these cells."
    assert f"% {why}" in found["row.tex"]
    cells = cells_of(found["row.tex"])
    assert cells["Certified"] == r"\textbf{not certified}$^{\dagger}$"
    assert cells[r"$\alpha$"] == r"${0.380}^{\dagger}\ [0.345, 0.415]$"
    assert found["row.tex"].count(r"\dagger") == 6 + 2 + 1  # estimates, hold-outs, verdict
    row = next(csv.DictReader(io.StringIO(found["row.csv"])))
    assert (row["certified"], row["reasons"]) == ("False", "the exponents are not identified by these cells")
    text = " ".join(found["methods.txt"].split())
    assert text.startswith(why)
    assert "The estimates (NOT certified) are alpha" in text
    assert "by a fit that is NOT certified" in text


def test_a_stale_fit_is_called_so(tmp_path, rows):
    directory = write_sweep(tmp_path / "stale", rows, study=hand_study(pd.DataFrame(rows)))
    with open(directory / "runs.csv", "a") as file:
        file.write("\n")
    found = paper(read(directory))
    assert "% STALE: runs.csv has changed" in found["row.tex"] and r"\dagger" in found["row.tex"]
    assert found["methods.txt"].startswith("STALE: ")
    assert next(csv.DictReader(io.StringIO(found["row.csv"])))["stale"] == "True"


def test_signs_of_latex_stay_text(tmp_path, rows):
    found = papers(tmp_path, rows, name="50% of a_b & c\n\\input{x}")
    cells = cells_of(found["row.tex"])
    assert cells["Sweep"] == "50\\% of a\\_b \\& c \\textbackslash{}input\\{x\\}"
    assert len([line for line in found["row.tex"].splitlines() if not line.startswith("%")]) == 1


def test_missing_numbers_are_gaps_and_not_zeros(tmp_path, rows):
    study = hand_study(pd.DataFrame(rows))
    study["fit"]["estimates"]["A"] = None
    study["fit"]["estimates"]["E"] = 1.5e9
    study["fit"]["intervals"]["alpha"] = None
    study["source"]["excluded"] = [{"cell": f"c{number}", "why": "filter seed==0"} for number in range(6)]
    study["source"]["excluded"].append({"row": "row 7", "why": "status is failed"})
    found = papers(tmp_path, rows, **study | {"seed_noise": None, "holdouts": [], "frontier": None})
    cells = cells_of(found["row.tex"])
    assert (cells["$A$"], cells[r"$\alpha$"]) == ("--", "${0.38}$")
    assert cells["$E$"] == r"${1.5 \times 10^{9}}\ [1.99, 2.21]$"
    row = next(csv.DictReader(io.StringIO(found["row.csv"])))
    assert row["A"] == row["alpha_low"] == row["seed_sd_nats"] == row["flops_per_product"] == ""
    text = " ".join(found["methods.txt"].split())
    assert "Left out: 6 because filter seed==0; 1 because status is failed (row 7)." in text
    assert "alpha = 0.38 (no interval)" in text and "A = none" in text
    assert "Nothing could be held out." in text and "run-to-run noise is not measured" in text


def test_a_pooled_fit_names_every_table(tmp_path, rows):
    study = hand_study(pd.DataFrame(rows))
    study["source"]["sources"] = [{"path": "a/runs.csv", "sha256": "1f"}, {"path": "b.csv", "sha256": "2e"}]
    text = " ".join(papers(tmp_path, rows, **study)["methods.txt"].split())
    assert "(pooled from a/runs.csv of SHA-256 1f, b.csv of SHA-256 2e; filter none)" in text


def test_without_a_fit_no_file_of_an_earlier_one_is_left(tmp_path, rows):
    directory = write_sweep(tmp_path / "small", rows[:2])
    (directory / "paper").mkdir()
    (directory / "paper" / "row.tex").write_text("of an earlier fit")
    write_report(directory)
    assert list((directory / "paper").iterdir()) == []
