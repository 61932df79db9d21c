"""Reports of laws that count more than params and tokens."""

import math

import pytest
from synthetic_sweep import make_rows, write_sweep

from harness.laws.settings import FitConfig
from harness.laws.study import write_study
from harness.report.inputs import read
from harness.report.page import draw


@pytest.mark.parametrize(("law", "lines"), [("width_depth", 0), ("chinchilla_repeated", 6)])
def test_a_law_of_more_than_params_and_tokens_has_a_report(tmp_path, law, lines):
    """With a line a shape where all tell of one corpus, here of 2e6 tokens; a path through shapes is not known."""
    seen = [{"unique_tokens": min(row["tokens"], 2e6), "epochs": max(1.0, row["tokens"] / 2e6)} for row in make_rows()]
    directory = write_sweep(tmp_path / law, [row | more for row, more in zip(make_rows(), seen, strict=True)])
    found = write_study(FitConfig(runs=str(directory), law=law, bootstrap=0))
    by_tokens = found["bands"]["by_tokens"]
    assert len(by_tokens) == lines
    if lines:  # what is worth U at 2e6 tokens is worth less than 2 U at 4e6
        by_name, band = found["fit"]["estimates"], by_tokens[-1]
        of_params = by_name["A"] * band["params"] ** -by_name["alpha"]
        worth = 2e6 * (1 + by_name["R"] * (1 - math.exp(-(band["tokens"][-1] / 2e6 - 1) / by_name["R"])))
        expected = by_name["E"] + of_params + by_name["B"] * worth ** -by_name["beta"]
        assert band["predicted"][-1] == pytest.approx(expected)
        assert not any("counts as fresh tokens" in note for note in found["notes"])
    names = [figure.name for figure in draw(read(directory))]
    assert {"loss_by_params", "loss_by_tokens", "residuals", "exponents"} <= set(names)
