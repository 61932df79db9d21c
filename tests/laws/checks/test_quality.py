"""Rows that steer a fit, defy it, repeat another one, or were measured before the cooldown; and odd units."""

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.laws import fit
from harness.laws.checks.quality import deviations, influence, quality
from harness.laws.settings import FitConfig
from harness.laws.study import study
from harness.laws.table.levels import budget_labels, shape_labels
from harness.laws.table.rows import Cells
from harness.laws.table.table import as_table

GEMSTONES = {"params": "params_active_precise", "target": "final_loss"}


def checked(frame, **choices):
    table = as_table(frame)
    result = fit(table, **({"loss": "log_mse"} | choices))
    rows = result.rows
    cells = Cells(table, rows, shape_labels(table.frame, rows.params), budget_labels(rows.tokens))
    return quality(cells, result)


def test_a_clean_table_gives_no_word(simulated):
    section, notes = checked(simulated(noise=0.001))
    assert notes == []
    assert section["outliers"]["count"] == section["duplicates"]["count"] == section["rising"]["count"] == 0
    assert (section["rising"]["steps"], section["rising"]["rises"]) == (18, 0)  # six shapes, four budgets
    assert section["influence"]["of"] == "a"
    assert len(section["influence"]["rows"]) == 20


@pytest.mark.parametrize("loss", ["log_mse", "mse", "huber"])
@pytest.mark.parametrize("law", ["chinchilla", "kaplan_tokens_floor"])
def test_influence_is_what_refits_show(simulated, loss, law):
    table = simulated(noise=0.001)
    if law == "kaplan_tokens_floor":
        tokens = np.geomspace(1e6, 2e7, 32)
        losses = (2 + 1.2 * (tokens / 2e6) ** -0.45) * table["loss"] / simulated()["loss"]
        table = pd.DataFrame({"params_with_head": np.full(32, 1e5), "tokens": tokens, "loss": losses})
    choices = {"law": law, "loss": loss, "delta": 0.05}
    result = fit(table, **choices)
    name, shift = influence(result)
    assert name == {"chinchilla": "a", "kaplan_tokens_floor": "alpha"}[law]
    moved = np.array([fit(table.drop(index=row), **choices).estimates[name] for row in table.index])
    moved -= result.estimates[name]
    little = 0.2 * np.diff(result.intervals[name])[0] / 2
    small = np.abs(moved) < little
    assert small.sum() > 15
    assert np.abs(shift - moved)[small].max() < 0.05 * little
    # A row that moves much is told to be so, though not to the last digit.
    assert np.argmax(np.abs(shift)) == np.argmax(np.abs(moved))
    assert np.abs(shift - moved).max() < 0.25 * np.abs(moved).max()


def test_a_row_that_steers_is_named(simulated):
    """The one cell of the largest shape, 1 % too high; a refit without it gives .5284 instead of .4986."""
    table = simulated(noise=0.001).drop(index=[20, 21, 22], columns="trunk")
    table.loc[23, "loss"] *= 1.01
    notes = checked(table)[1]
    assert notes[0] == "Single rows steer a: without w128-d4-t4e+06-s0 it would be about 0.527 instead of 0.499."


@pytest.mark.parametrize("loss", ["log_mse", "huber", "lad", "mse"])
def test_the_five_outlying_points_of_chinchilla_are_named(published, loss):
    runs = pd.read_csv(published / "chinchilla_epoch" / "runs.csv")
    section, notes = checked(runs, params="N", tokens="D", loss=loss)
    named = [entry["cell"] for entry in section["outliers"]["rows"]]
    # Rows 1 to 5 were left out by Epoch; 61 and 245 lie almost as far off.
    assert np.flatnonzero(~runs["kept"]).tolist() == [0, 1, 2, 3, 4]
    assert sorted(named) == ["row 1", "row 2", "row 245", "row 3", "row 4", "row 5", "row 60"]
    assert any("7 rows lie further from the law than noise explains: row 2 by +47.7" in note for note in notes)


@pytest.mark.parametrize("trunks", [True, False])
def test_gaussian_noise_is_no_outlier(simulated, trunks):
    """In 1 % of the tables one is expected; 6 or more of 150 come up in 1 of 300 such tests."""
    result = fit(simulated(), loss="log_mse")
    generator = np.random.default_rng(0)
    clean, named = result.problem.target, 0
    trunk = np.repeat(np.arange(8), 4)
    for _ in range(150):
        noise = generator.standard_normal(32)
        if trunks:
            noise = np.sqrt(0.5) * (noise + generator.standard_normal(8)[trunk])
        task = type(result.problem)(
            result.form, result.problem.at, clean * np.exp(0.002 * noise), np.ones(32), result.problem.loss
        )
        deviation = deviations(task, result.theta_P)
        named += bool((np.abs(deviation.size_R) > deviation.bound).any())
    assert named < 6


def test_rows_that_repeat_another_are_named_and_seeds_are_not(simulated):
    table = simulated(noise=0.001)
    section, notes = checked(pd.concat([table, table.iloc[[5]]]))
    assert section["duplicates"] == {"count": 1, "rows": [{"cell": table["cell"][5], "same_as": table["cell"][5]}]}
    assert any(
        note.startswith("1 row repeats another one in params, tokens, loss, cluster, seed, and so counts twice: ")
        for note in notes
    )
    # The second seeds of two shapes, with the losses of the first.
    table.loc[24:, "loss"] = table["loss"][:8].to_numpy()
    assert checked(table)[0]["duplicates"]["count"] == 0
    assert checked(table.drop(columns=["trunk", "seed"]))[0]["duplicates"]["count"] == 8


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"phase": ["hot", "cooled"]}, "Column phase varies (hot in 16 rows, cooled in 16 rows)"),
        ({"is_cooled": [True, False]}, "Column is_cooled varies (True in 16 rows, False in 16 rows)"),
        ({"hot": ["0", "1"]}, "Column hot varies (0 in 16 rows, 1 in 16 rows)"),
        ({"final_lr": [1e-3, 0.0]}, "Column final_lr varies within a shape (0 to 0.001)"),
        ({"cooldown_tokens": [1e5, 2e5]}, None),
        ({"photograph": ["a", "b"]}, None),
        ({"phase": ["cooled", "cooled"]}, None),
        ({"final_lr": [1e-4, 1e-4]}, None),
    ],
)
def test_a_column_that_tells_hot_from_cooled_is_named(simulated, values, note):
    ((column, pair),) = values.items()
    section, notes = checked(simulated(noise=0.001).assign(**{column: pair * 16}))
    if note is None:
        assert section["hot"] == [] and notes == []
        return
    assert section["hot"][0]["column"] == column
    assert notes[-1].startswith(note)
    assert "filter=" in notes[-1]


def test_hot_points_among_cooled_ones_show_as_rising_losses(published):
    hot, cooled = (pd.read_csv(published / "gemstones" / f"runs_{kind}.csv") for kind in ("hot", "cool_end"))
    for runs in (hot, cooled):
        assert not any("hot points are mixed" in note for note in checked(runs, **GEMSTONES)[1])
    section, notes = checked(pd.concat([hot, cooled]), **GEMSTONES)
    assert (section["rising"]["steps"], section["rising"]["rises"]) == (397, 160)
    assert any("The loss rises in 160 of 397 steps to more tokens within a shape: hot points" in note for note in notes)
    mixed = pd.concat([hot.assign(kind="hot", phase="hot"), cooled.assign(kind="cool", phase="cooled")])
    assert any(note.startswith("Column phase varies (hot in 220 rows, cooled in 199") for note in
               checked(mixed, **GEMSTONES)[1])  # fmt: skip


def test_a_run_that_diverged_is_named(simulated):
    table = simulated(noise=0.001)
    table.loc[11, "loss"] = 5.5
    section, notes = checked(table)
    rise = np.log(5.5 / table["loss"][8:11].min())
    assert section["rising"]["rows"] == [
        {"cell": "w64-d3-t4e+06-s0", "above": "w64-d3-t2.5e+06-s0", "rise": pytest.approx(rise)}
    ]
    assert "w64-d3-t4e+06-s0 is " in notes[-1] and "They diverged, were not cooled" in notes[-1]
    assert section["outliers"]["rows"][0]["cell"] == "w64-d3-t4e+06-s0"


def test_units_that_do_not_fit_are_named(simulated):
    table = simulated(noise=0.001)
    stated = {"units": {"tokens": 1, "flops": 1}, "target_unit": "nats"}
    assert checked(table.assign(tokens=table["tokens"] / 1e6, flops=table["flops"]), **stated)[0]["units"] == [
        "Every row has fewer tokens than params: check that tokens and params_with_head are plain counts.",
        "Column flops is 7e+06 to 7e+06 times params x tokens, where training takes about 6: check the units of all "
        "three.",
    ]
    units = checked(table.assign(vocab_size=32), **stated)[0]["units"]
    above = table["loss"] > np.log(32)
    first = table[above].iloc[0]
    assert units == [
        f"{above.sum()} rows have a loss above that of a uniform guess, such as {first['cell']} with "
        f"{first['loss']:.4g} where log(vocab_size) is 3.466: check that loss is in nats per token."
    ]


def test_columns_in_mixed_units_are_refused(simulated):
    table = simulated(noise=0.001)
    config = FitConfig(runs="x", bootstrap=0)
    with pytest.raises(UserError, match="the table: every row has fewer tokens than params_with_head, as where they"):
        study(as_table(table.assign(tokens=table["tokens"] / 1e9)), config)
    # Losses of 2.9 to 4.9 nats: most are above log(16) = 2.77, none above log(1024) = 6.93.
    with pytest.raises(UserError, match=r"row 1, column loss: .* is above 2\.773, the loss of a uniform guess, as are"):
        study(as_table(table.assign(vocab_size=16)), config)
    assert study(as_table(table.assign(vocab_size=1024)), config)["quality"]["units"] == []


def test_our_own_cells_may_have_fewer_tokens_than_params(simulated):
    table = simulated(noise=0.001).assign(config_hash="0" * 12)
    report = study(as_table(table.assign(tokens=table["tokens"] / 100)), FitConfig(runs="x", bootstrap=0))
    assert any("Every row has fewer tokens than params" in note for note in report["notes"])


def test_the_study_says_what_is_wrong(simulated):
    table = simulated(noise=0.001)
    table.loc[11, "loss"] = 5.5
    report = study(as_table(table), FitConfig(runs="x", bootstrap=0))
    assert report["quality"]["outliers"]["count"] >= 1
    assert any("further from the law than noise explains" in note for note in report["notes"])
    assert report["source"]["rows_used"] == 32
