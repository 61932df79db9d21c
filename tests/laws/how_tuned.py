"""How tuned is enough? Step Law's runs fitted with the best of k random settings at each size.

    python tests/laws/how_tuned.py [DRAWS [docs/how_tuned.png]]

Of every draw: the gap of the best loss to the fitted minimum, the exponents and their certificate, and the error on the
quarter of most compute. Of k independent settings the best lies above a minimum of p settings by a height that falls as
k^(-2/p).
"""

import sys
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from reproduce import FOLDER
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from harness.laws import fit, tune
from harness.laws.tune import Tuned
from harness.report import style
from harness.report.render import VEGA_LITE

SETTINGS, COUNTS, DRAWS = ["lr", "batch_sequences"], (1, 2, 4, 8, 16, 32, 47), 100
WITHIN = 4.0
SHOWN = ("alpha", "beta", "a", "E")


def floors(tuned: Tuned) -> dict[tuple[float, float], float]:
    """The fitted least log loss of each size, by its params and tokens: the mean of its rows less their heights."""
    bowl = tuned.basin.bowl
    weighted_RG = bowl.design.groups_RG * bowl.design.weight_R[:, None]
    floor_C = (weighted_RG.T @ bowl.floors(tuned.basin.theta_P)) / weighted_RG.sum(0)
    return dict(zip(zip(tuned.runs.sizes.params_C, tuned.runs.sizes.tokens_C, strict=True), floor_C, strict=True))


def best_of(runs: pd.DataFrame, count: int, generator: np.random.Generator) -> pd.DataFrame:
    """The run of least loss of so many random ones at each size."""
    shuffled = runs.iloc[generator.permutation(len(runs))]
    drawn = shuffled.groupby(["N", "D"]).head(count)
    return drawn.loc[drawn.groupby(["N", "D"])["loss"].idxmin()]


def judged(rows: pd.DataFrame, least: dict[tuple[float, float], float]) -> dict[str, float]:
    """The mean gap of the rows' losses, the additive law's numbers, and its error where it was not fitted."""
    gap = [np.log(row.loss) - least[row.N, row.D] for row in rows.itertuples()]
    found = fit(rows, params="N", tokens="D")
    held = rows["N"] * rows["D"] > np.quantile(rows["N"] * rows["D"], 0.75)
    rest = fit(rows[~held], params="N", tokens="D")
    error = np.abs(rest.predict(rows["N"][held], rows["D"][held]) / rows["loss"][held] - 1).mean()
    numbers = {name: found.estimates[name] for name in SHOWN}
    return numbers | {"gap": float(np.mean(gap)), "certified": found.certificate.certified, "error": float(error)}


def effective(gaps: dict[int, float]) -> float:
    """p of a gap that falls as k^(-2/p), from the counts up to 16."""
    few = {count: gap for count, gap in gaps.items() if 2 <= count <= 16}
    slope = np.polyfit(np.log(list(few)), np.log(list(few.values())), 1)[0]
    return float(-2 / slope)


def main(
    draws: int, folder: Path = FOLDER, console: Console | None = None, counts: tuple[int, ...] = COUNTS
) -> dict[int, pd.DataFrame]:
    console = console or Console(width=130)
    runs = pd.read_csv(folder / "step_law" / "runs.csv")
    least = floors(tune(runs, SETTINGS, within=WITHIN))
    generator = np.random.default_rng(0)
    found = {}
    table = Table("k", "gap", *SHOWN, "certified", "largest quarter", box=SIMPLE_HEAD)
    for count in counts:
        found[count] = pd.DataFrame([judged(best_of(runs, count, generator), least) for _ in range(draws)])
        middle = found[count][list(SHOWN)].quantile([0.025, 0.5, 0.975])
        shown = [f"{m:.3f} ({low:.3f}-{high:.3f})" for low, m, high in (middle[name] for name in SHOWN)]
        share, error = found[count]["certified"].mean(), found[count]["error"].median()
        table.add_row(str(count), f"{found[count]['gap'].mean():.2%}", *shown, f"{share:.0%}", f"{error:.2%}")
    everything = judged(best_of(runs, len(runs), generator), least)
    shown = [f"{everything[name]:.3f}" for name in SHOWN]
    sealed = "yes" if everything["certified"] else "no"
    table.add_row("all", f"{everything['gap']:.2%}", *shown, sealed, f"{everything['error']:.2%}")
    console.print(table)
    settings = effective({count: float(each["gap"].mean()) for count, each in found.items()})
    console.print(f"the gap falls as k^(-2/p) with p = {settings:.1f}, medians and 95 % of {draws} draws")
    return found


def draw(found: dict[int, pd.DataFrame], path: Path) -> None:
    """The gap, a mean with its line, and the exponents, medians with 95 % of the draws, against k as a picture."""
    gaps = {count: 100 * float(each["gap"].mean()) for count, each in found.items()}
    settings = effective(gaps)
    scale = np.exp(np.mean([np.log(gap * count ** (2 / settings)) for count, gap in gaps.items() if 2 <= count <= 16]))
    power = [{"k": count, "gap": scale * count ** (-2 / settings)} for count in gaps]
    k = alt.X("k:Q", title="settings tried at each size, k", scale=alt.Scale(type="log"), axis=alt.Axis(values=[*gaps]))
    gap = alt.Y("gap:Q", title="loss above the fitted minimum (%)", scale=alt.Scale(type="log"))
    points = alt.Chart(pd.DataFrame({"k": [*gaps], "gap": [*gaps.values()]})).encode(k, gap)
    ruled = alt.Chart(pd.DataFrame(power)).mark_line(color=style.INK, strokeDash=[4, 3]).encode(k, gap)
    panels = [(points.mark_point(filled=True, size=60) + ruled).properties(width=260, height=240)]
    for name in ("alpha", "beta", "a"):
        ends = [each[name].quantile([0.025, 0.5, 0.975]).tolist() for each in found.values()]
        low, middle, high = zip(*ends, strict=True)
        bands = alt.Chart(pd.DataFrame({"k": [*found], "low": low, "middle": middle, "high": high})).encode(k)
        y = alt.Scale(domain=(0, 1.5), clamp=True)
        area = bands.mark_area(opacity=0.25).encode(alt.Y("low:Q", title=name, scale=y), alt.Y2("high"))
        line = bands.mark_line(point=True).encode(alt.Y("middle:Q", scale=y))
        panels.append((area + line).properties(width=180, height=240))
    words = f"The gap to the fitted minimum falls as k^(-2/{settings:.1f}) with the settings tried; exponents narrow."
    spec = style.specification(alt.hconcat(*panels, spacing=14), words)
    path.write_bytes(vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=1.5))


if __name__ == "__main__":
    all_draws = main(int(sys.argv[1]) if len(sys.argv) > 1 else DRAWS)
    if len(sys.argv) > 2:
        draw(all_draws, Path(sys.argv[2]))
