"""What the end of a sweep prints of its fit."""

from io import StringIO

import pytest
from rich.console import Console

from harness.laws.settings import FitConfig
from harness.laws.study import study
from harness.laws.summary import show_briefly
from harness.laws.table.table import as_table


@pytest.fixture(scope="module")
def report(simulated):
    return study(as_table(simulated(noise=0.001)), FitConfig(runs="the table", bootstrap=400))


def test_the_headline_of_a_sweep_fits_a_part_of_a_screen(report):
    console = Console(record=True, width=80, file=StringIO())
    show_briefly(report, console, "outputs/it's")
    lines = console.export_text().rstrip().splitlines()
    assert len(lines) <= 17 and "…" not in "".join(lines)
    head = report["fit"]
    counts = [head, *(fit for fit in report["by_params"] if fit["params"] != head["params"])]
    for key in ("alpha", "beta", "a", "E"):
        shown = [f"{fit['estimates'][key]:.3f} {fit['intervals'][key][0]:.3f}-{fit['intervals'][key][1]:.3f}"
                 for fit in counts]  # fmt: skip
        (line,) = [line for line in lines if line.split()[:1] == [key]]
        assert line.split() == [key, *" ".join(shown).split()]
    (verdict,) = [line for line in lines if line.split()[:1] == ["certified"]]
    assert verdict.split()[1:] == ["yes"] * 3
    whole = "\n".join(lines)
    for part in ("certified: gradient ", "hold-out: the largest shape", "recommended: chinchilla: ",
                 "do not cover the choice of grid and settings", "verbose=true`"):  # fmt: skip
        assert part in whole
    assert lines[-1].startswith(f"{len(report['notes'])} notes and the rest: its report, or `python scripts/fit.py ")
    assert "runs='outputs/it'\"'\"'s' verbose=true`" in lines[-1]


def test_of_a_headline_that_is_not_certified_no_number_is_printed(report):
    reasons = {"certified": False, "reasons": ["E is at the lower bound 0"]}
    head = report["fit"] | {"certificate": report["fit"]["certificate"] | reasons}
    console = Console(record=True, width=80, file=StringIO())
    show_briefly(report | {"fit": head}, console, "outputs/smoke")
    assert console.export_text().splitlines() == [
        "NOT certified: E is at the lower bound 0",
        "none of its exponents means anything, so none is printed here; the rest: its report, or `python "
        "scripts/fit.py runs=outputs/smoke verbose=true`",
    ]


def test_an_exponent_that_noise_does_not_move_so_far_is_printed_too(report):
    moved = report["moves"][0] | {"a": report["moves"][0]["a"] | {"inside": False}}
    text = {"half_width": {"a": 0.0404}, "parts": 10}
    console = Console(record=True, width=80, file=StringIO())
    show_briefly(report | {"moves": [moved], "validation_text": text}, console, "x")
    shown = console.export_text()
    assert "OUTSIDE" in shown and "nor other validation text (a within 0.040)" in shown
