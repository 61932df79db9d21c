"""What other text to validate on would do to the exponents."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from harness.errors import UserError
from harness.laws import fit
from harness.laws.checks.validation import by_text, sentence
from harness.laws.settings import FitConfig
from harness.laws.study import study
from harness.laws.summary import show
from harness.laws.table.table import as_table


def with_parts(frame, parts_RK):
    """The table with these losses by part and their mean as the loss."""
    texts = [" ".join(map(repr, row.tolist())) for row in parts_RK]
    return frame.assign(loss=parts_RK.mean(1), loss_parts=texts)


def jackknifed(frame):
    return by_text(fit(frame, loss="log_mse"), as_table(frame))


def test_parts_that_are_harder_by_a_constant_move_the_floor_alone(simulated):
    """E of the whole is the mean of ten floors, whose standard error is their standard deviation over root 10."""
    frame = simulated()
    shift_K = np.array([-0.2, -0.1, -0.1, 0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.2])
    found = jackknifed(with_parts(frame, frame["loss"].to_numpy()[:, None] + shift_K))
    assert found["parts"] == 10
    error = np.sqrt((2 * 0.04 + 4 * 0.01) / 9 / 10)
    assert found["half_width"]["E"] == pytest.approx(2.262 * error, rel=1e-3)
    assert max(found["half_width"][name] for name in ("alpha", "beta", "a")) < 1e-5


def test_parts_with_exponents_of_their_own_move_them(simulated):
    """What simulated texts differ by is found: the mean squared half-width against the variance between texts."""
    frame, generator = simulated(), np.random.default_rng(0)
    params, tokens = frame["params_with_head"] / 4e5, frame["tokens"] / 2e6

    def text():
        beta_K = 0.45 + 0.05 * generator.standard_normal(10)
        loss_KR = [2.1 + 0.7 * params**-0.4 + 1.2 * tokens**-beta for beta in beta_K]
        return with_parts(frame, np.array(loss_KR).T)

    texts = [text() for _ in range(40)]
    fitted = [fit(each, loss="log_mse", bootstrap=0).estimates["beta"] for each in texts]
    squares = [(jackknifed(each)["half_width"]["beta"] / stats.t.ppf(0.975, 9)) ** 2 for each in texts[:15]]
    assert np.sqrt(np.mean(squares)) == pytest.approx(np.std(fitted, ddof=1), rel=0.3)


def test_a_table_without_parts_says_nothing(simulated):
    frame = simulated(noise=0.002)
    parts = with_parts(frame, frame["loss"].to_numpy()[:, None] * np.linspace(0.9, 1.1, 4))
    assert jackknifed(frame) is None and sentence(None) is None
    assert jackknifed(parts.assign(loss_parts=["", *parts["loss_parts"][1:]])) is None
    assert by_text(fit(parts.assign(other=parts["loss"]), target="other"), as_table(parts)) is None
    below = simulated(E=-0.3)
    below = with_parts(below, below["loss"].to_numpy()[:, None] + np.linspace(-0.1, 0.1, 10))
    assert fit(below, loss="log_mse").estimates["E"] == 0.0 and jackknifed(below) is None
    with pytest.raises(UserError, match="column loss_parts holds more than numbers"):
        jackknifed(parts.assign(loss_parts="1 2 x 4"))


def test_the_terminal_says_it(simulated):
    frame = simulated(noise=0.002)
    parts = with_parts(frame, frame["loss"].to_numpy()[:, None] + np.linspace(-0.1, 0.1, 10))
    report = study(as_table(parts), FitConfig(runs="the table", bootstrap=200))
    half = report["validation_text"]["half_width"]
    console = Console(width=400, record=True, file=io.StringIO())
    show(report, console)
    assert (
        f"validation text: the mean over all text of this kind lies within alpha {half['alpha']:.3f}, beta "
        f"{half['beta']:.3f}, a {half['a']:.3f}, E {half['E']:.3f} of these values (95 %, jackknife over 10 parts"
    ) in console.export_text()
