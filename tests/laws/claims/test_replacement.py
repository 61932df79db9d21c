"""What a token of a variant is worth by the losses themselves, against arithmetic."""

import numpy as np
import pytest
from known_sweep import cell, write_cells, written

from harness.errors import UserError
from harness.laws.claims.measured import Evidence
from harness.laws.claims.quantities import measure, needed
from harness.laws.claims.replacement import equal_tokens

BUDGETS = (0.5e6, 1e6, 2e6)


def folder(path, generated, half=lambda width, tokens: 4 - tokens / 1e6, real=lambda width, tokens: 4 * tokens**-0.1):
    """Losses by width and millions of tokens."""
    rows = []
    for variant, loss in {"real": real, "half": half, "generated": generated}.items():
        for width, depth, seed in ((48, 2, 0), (48, 2, 1), (64, 2, 0)):
            own = [cell(width, depth, t, lambda row, w=width + seed, of=loss: of(w, row["tokens"] / 1e6), seed)
                   for t in BUDGETS]  # fmt: skip
            rows += [row | {"variant": variant, "cell": f"{variant}-{row['cell']}"} for row in own]
    found = write_cells(path, rows, axes=["variant"])
    names = {name: {} for name in ("half", "generated")}
    written(found, "compare", {"baseline": "real", "column": "variant", "variants": names})
    return found


def test_tokens_of_equal_loss_lie_straight_in_the_logs():
    """L = 4 D^-.1 with D in millions: 4 * .8^-.1 is reached at .8 M, beyond the ends up to 1.5 times as far."""
    tokens, loss = np.array(BUDGETS), 4 * np.array([0.5, 1.0, 2.0]) ** -0.1
    asked = np.array([0.3, 0.34, 0.5, 0.8, 1.0, 1.7, 2.0, 2.9, 3.1])
    expected = [np.nan, 0.34e6, 0.5e6, 0.8e6, 1e6, 1.7e6, 2e6, 2.9e6, np.nan]
    np.testing.assert_allclose(equal_tokens(tokens, loss, 4 * asked**-0.1), expected, rtol=1e-9)
    with pytest.raises(ValueError):
        equal_tokens(tokens, np.array([4.0, 3.5, 3.5]), loss)


def test_a_variant_is_worth_what_its_runs_are_at_the_largest_budget(tmp_path):
    """Runs of .4, .5 and .625 of a token at 2 M: the mean is .5; the logs lie log 1.25 = .22314 apart, so the interval
    is 4.30265 * .22314 / sqrt 3 = .55433 to each side. At .5 M all are worth .9."""
    worth = {48: 0.4, 49: 0.5, 64: 0.625}
    generated = lambda width, tokens: 4 * (tokens * (worth[width] if tokens > 1 else 0.9)) ** -0.1  # noqa: E731
    found = measure("compare.generated.replaces", Evidence(folder(tmp_path / "a", generated)))
    assert (found.estimate, found.low, found.high) == pytest.approx(
        (0.5, 0.5 * np.exp(-0.55433), 0.5 * np.exp(0.55433)), rel=1e-4
    )
    assert not found.doubts
    (own,) = (row for row in found.rows if row.decides)
    assert own.label == "generated, 2 M tokens"
    first = next(row for row in found.rows if row.label == "generated, 0.5 M tokens")
    assert (first.estimate, first.low, first.high) == pytest.approx((0.9, 0.9, 0.9))
    assert [row.label.split(",")[0] for row in found.rows][-3:] == ["generated"] * 3
    assert [point["x"] for point in found.panel.points if point["series"] == "generated"] == [0.5, 1.0, 2.0]


def test_what_the_losses_do_not_tell_is_undecided(tmp_path):
    beyond = measure("compare.generated.replaces", Evidence(folder(tmp_path / "a", lambda width, tokens: 9.0)))
    assert beyond.estimate is None
    assert beyond.doubts == ["generated has a single run there, or losses too far beyond those of real"]
    level = folder(tmp_path / "b", lambda width, tokens: 4.0, real=lambda width, tokens: 4.0)
    assert measure("compare.generated.replaces", Evidence(level)).doubts == [
        "the loss of real does not fall from budget to budget at w48-d2-s0"
    ]
    with pytest.raises(UserError, match="claim.quantity names other, and compare.json has the variants half, gen"):
        measure("compare.other.replaces", Evidence(level))
    assert needed("compare.generated.replaces") == "compare"
