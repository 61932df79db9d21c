"""How often the intervals of forecasts hold what came, on runs that other groups published.

Each law is fitted (log_mse, as scripts/fit.py does) to the rows of less compute and forecasts the others, by its own
interval alone and by that widened with compute (harness/laws/prediction/growth.py). The prior of the widening is
measured on the tables of all other sources. python tests/laws/forecast_coverage.py
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from three_laws import FOLDER, Published, most_flops, tables

from harness.errors import UserError
from harness.laws import fit
from harness.laws.prediction.combination import LAWS
from harness.laws.prediction.forecast import LEVELS
from harness.laws.prediction.growth import CUTS, LEAST_LOSS, ONE_SD, PRIOR_CUTS, Beyond, beyond_cut, of_cuts, widened

Array = NDArray[np.float64]
LOSS = "log_mse"
# Which rows are forecast: by the share of the rows that have the most compute, or by compute over 1 / so much of the
# largest.
SHARES = {"largest quarter": 0.25, "larger half": 0.5}
FACTORS = {"over 1/4": 4.0, "over 1/16": 16.0, "over 1/64": 64.0}
# The largest tenth of what other tables show is left out of their mean.
TRIM = 0.9


@dataclass(frozen=True)
class Case:
    """A law's forecast of held-out rows: losses, predictions, its own intervals by level and compute over the most of
    the rest, (R,) each; what the rest shows of its growth, and what the held-out rows do."""

    source: str
    law: str
    name: str
    loss: Array
    predicted: Array
    ends: dict[float, tuple[Array, Array]]
    beyond: Array
    cuts: list[Beyond]
    seen: Beyond


@dataclass(frozen=True)
class Judged:
    """Shares of the rows within the intervals of LEVELS, and their mean interval scores in per cent of log loss."""

    covered: tuple[float, ...]
    score: tuple[float, ...]


def held_out(table: Published) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    _, _, flops_R, _ = table.numbers()
    for name, share in SHARES.items():
        yield name, most_flops(flops_R, share)
    for name, factor in FACTORS.items():
        yield name, flops_R * factor > flops_R.max()


def cases(table: Published) -> Iterator[Case]:
    """Those of the laws that the rows of less compute carry."""
    params_R, tokens_R, flops_R, loss_R = table.numbers()
    for name, held_R in held_out(table):
        for law in LAWS:
            try:
                fitted = fit(table.rows[~held_R], law=law, loss=LOSS, **table.columns)
            except UserError:
                continue
            places = params_R[held_R], tokens_R[held_R]
            predicted = fitted.predict(*places)
            ends = {level: fitted.predict_interval(*places, level) for level in (*LEVELS, ONE_SD)}
            beyond = flops_R[held_R] / flops_R[~held_R].max()
            expected = (np.log(ends[ONE_SD][1] / np.maximum(ends[ONE_SD][0], LEAST_LOSS)) / 2) ** 2
            excess = np.log(loss_R[held_R] / predicted) ** 2 - expected
            seen = Beyond(float(excess.mean()), float((np.log(beyond) ** 2).mean()))
            tried = (beyond_cut(fitted.rows, fitted.columns, law, LOSS, fitted.delta, share) for share in CUTS)
            cuts = [found for found in tried if found is not None]
            yield Case(table.source, law, name, loss_R[held_R], predicted, ends, beyond, cuts, seen)


def prior(others: list[Case]) -> float:
    """The root of the mean of what cases show, less the largest tenth."""
    squares = sorted(max(0.0, case.seen.excess) / case.seen.distance for case in others)
    return float(np.sqrt(np.mean(squares[: int(TRIM * len(squares))])))


def judge(case: Case, by_e: float) -> Judged:
    covered, scores = [], []
    log_R = np.log(case.loss)
    for level in LEVELS:
        low_R, high_R = (np.log(end) for end in widened(case.predicted, case.ends[level], case.beyond, by_e, level))
        outside_R = np.maximum(low_R - log_R, 0) + np.maximum(log_R - high_R, 0)
        covered.append(float((outside_R == 0).mean()))
        scores.append(100 * float((high_R - low_R + 2 / (1 - level) * outside_R).mean()))
    return Judged(tuple(covered), tuple(scores))


def line(title: str, judged: list[Judged]) -> str:
    covered = " ".join(f"{100 * value:5.1f}" for value in np.mean([each.covered for each in judged], axis=0))
    scores = " ".join(f"{value:6.2f}" for value in np.mean([each.score for each in judged], axis=0))
    return f"{title:42} {len(judged):4} {covered}   {scores}"


def main() -> int:
    if not (FOLDER / "expected.json").exists():
        print(f"the published runs are not at {FOLDER}: set PUBLISHED_RUNS to their folder")
        return 2
    found = [case for table in tables(FOLDER) for case in cases(table)]
    priors = {source: prior([case for case in found if case.source != source]) for source in {c.source for c in found}}
    grown = {
        "its own interval": [0.0 for _ in found],
        "widened, prior alone": [priors[case.source] for case in found],
        "widened, table alone": [of_cuts(case.cuts, 0.0, 1e-9).by_e for case in found],
        "widened": [of_cuts(case.cuts, priors[case.source], PRIOR_CUTS).by_e for case in found],
    }
    print(f"{'means over the cases of':42} cases cover 50, 90, 95 %   mean interval score, % of log loss")
    for title, by_e in grown.items():
        judged = [judge(case, each) for case, each in zip(found, by_e, strict=True)]
        print(line(title, judged))
        if title not in ("its own interval", "widened"):
            continue
        for key in ("law", "name", "source"):
            for value in dict.fromkeys(getattr(case, key) for case in found):
                part = [each for case, each in zip(found, judged, strict=True) if getattr(case, key) == value]
                print(line(f"  {value}", part))
    print(f"prior on all tables: {100 * prior(found):.3f} %; without one source {min(priors.values()):.5f} to "
          f"{max(priors.values()):.5f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
