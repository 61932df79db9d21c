"""How far the combination of laws may be trusted beyond a table, judged on runs that other groups published.

Four tables, each with its larger runs held out. The weight of an exponent is chosen on three of them and judged on the
fourth, in turn, beside the best single law. An argument names another count of params for Gadre et al.: N_no_embed.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.laws import fit
from harness.laws.prediction import combination
from harness.laws.prediction.combination import LAWS, combine

FOLDER = Path(os.environ.get("PUBLISHED_RUNS", Path(__file__).resolve().parents[3] / "shared" / "published"))
PARSIMONIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
LEVEL = 0.9
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """Mean absolute relative error in per cent, which runs the 90 % interval covers, and the mean interval score
    (Gneiting and Raftery 2007) of log losses in per cent."""

    error: float
    covered: list[bool]
    score: float


def tables(folder: Path, count: str) -> Iterator[tuple[str, pd.DataFrame, dict[str, str], "pd.Series[bool]"]]:
    """Name, rows, columns and which rows are held out; count: the column of Gadre et al. that is N."""
    runs = pd.read_csv(folder / "gadre_overtraining" / "runs.csv")
    runs = runs.assign(tokens=runs["M"] * runs["N"])
    for name, data in (("gadre rpj", "rpj"), ("gadre rw", "rw_original")):
        part = runs[runs["train_set"] == data]
        columns = {"params": count, "tokens": "tokens", "target": "loss_c4_val"}
        yield name, part, columns, part["N"] > 4.2e8
    ladder = pd.read_csv(folder / "olmo_ladder" / "final.csv")
    target = "eval/c4_en-validation/CrossEntropyLoss"
    yield "olmo ladder", ladder, {"params": "N", "tokens": "D", "target": target}, ladder["N"] > 2e9
    epoch = pd.read_csv(folder / "chinchilla_epoch" / "runs.csv")
    epoch = epoch[epoch["kept"].astype(str).str.lower().isin(["true", "1"])]
    yield "epoch", epoch, {"params": "N", "tokens": "D", "flops": "C"}, epoch["C"] >= 1e20


def judge(predictor: Any, test: pd.DataFrame, columns: dict[str, str]) -> Judged:
    params, tokens = test[columns["params"]], test[columns["tokens"]]
    logs = np.log(test[columns.get("target", "loss")].to_numpy(float))
    predicted = np.log(predictor.predict(params, tokens))
    low, high = (np.log(end) for end in predictor.predict_interval(params, tokens, LEVEL))
    outside = np.maximum(low - logs, 0) + np.maximum(logs - high, 0)
    score = (high - low) + 2 / (1 - LEVEL) * outside
    return Judged(
        100 * float(np.abs(np.expm1(predicted - logs)).mean()), (outside == 0).tolist(), 100 * float(score.mean())
    )


def reweighted(found: combination.Combination, value: float) -> combination.Combination:
    """The same combination at another weight of an exponent."""
    factors = [(value / combination.PARSIMONY) ** LAWS.index(member.fit.law) for member in found.members]
    raw = [member.weight * factor for member, factor in zip(found.members, factors, strict=True)]
    members = [
        combination.Member(member.fit, weight / sum(raw), member.errors)
        for member, weight in zip(found.members, raw, strict=True)
    ]
    return combination.Combination(members, found.most_flops, found.left_out)


def main() -> int:
    judged: dict[str, dict[str, Judged]] = {}
    for name, rows, columns, held in tables(FOLDER, (sys.argv[1:] or ["N"])[0]):
        found = combine(rows[~held], **columns)
        judged[name] = {f"{value:g}": judge(reweighted(found, value), rows[held], columns) for value in PARSIMONIES}
        for law in LAWS:
            judged[name][law] = judge(fit(rows[~held], law=law, **columns), rows[held], columns)
        print(f"{name}: {int(held.sum())} runs held out", flush=True)
        for key in (*LAWS, *(f"{value:g}" for value in PARSIMONIES)):
            found_here = judged[name][key]
            print(
                f"  {key:20} error {found_here.error:.3f} %, covers {np.mean(found_here.covered):.3f}, "
                f"score {found_here.score:.2f} %"
            )
    chosen = {}
    for name in judged:
        others = [other for other in judged if other != name]
        chosen[name] = min(
            (f"{value:g}" for value in PARSIMONIES),
            key=lambda key: float(np.mean([judged[other][key].error for other in others])),  # noqa: B023
        )
    rows_of = {"chosen on the other three": [judged[name][chosen[name]] for name in judged]}
    rows_of |= {law: [judged[name][law] for name in judged] for law in LAWS}
    print(f"weights of an exponent chosen on the other three: {chosen}")
    for title, parts in rows_of.items():
        covered = np.concatenate([part.covered for part in parts])
        print(
            f"{title:26} mean error {np.mean([part.error for part in parts]):.3f} %, 90 % intervals cover "
            f"{covered.mean():.1%} of {len(covered)}, mean score {np.mean([part.score for part in parts]):.2f} %"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
