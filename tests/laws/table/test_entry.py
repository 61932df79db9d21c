"""What stands in people's tables: other names, units, states and settings, and what of it a fit may take."""

import numpy as np
import pandas as pd
import pytest

from harness.errors import UserError
from harness.laws import combine, compare, fit
from harness.laws.settings import FitConfig, fit_config
from harness.laws.study import study
from harness.laws.table.entry import admitted, prepared
from harness.laws.table.repeats import expected_least, repeated, settings
from harness.laws.table.rows import Columns
from harness.laws.table.table import as_table, read_runs
from harness.laws.table.units import Units, doubts

PARAMS, TOKENS = (1e6, 3e6, 1e7, 3e7, 1e8), (1e8, 3e8, 1e9, 3e9, 1e10)
GRID = pd.DataFrame([{"N": n, "D": d, "loss": 1.7 + 400 / n**0.34 + 410 / d**0.28} for n in PARAMS for d in TOKENS])


def ready(frame, law="chinchilla", expression="", best=None, units=None, target=None, bytes_per_token=None, **columns):
    return prepared(
        as_table(frame), Columns(**columns), law, expression, best, units or Units(), target, bytes_per_token
    )


def refused(frame, **choices) -> str:
    with pytest.raises(UserError) as caught:
        ready(frame, **choices)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "params",
    [
        *("N", "params", "n_params", "num_params", "parameters", "nParams", "config.n_params", "model/N"),
        *("non-embedding params", "params_non_embedding", "Non-Embedding"),
    ],
)
@pytest.mark.parametrize(
    ("tokens", "loss"), [("D", "val_loss"), ("train_tokens", "nll"), ("tokens_seen", "eval/loss"), ("num_tokens", "L")]
)
def test_usual_names_are_found_and_told(params, tokens, loss):
    frame = GRID.set_axis([params, tokens, loss], axis=1).assign(
        tokens_per_second=1.0, loss_se=0.1, warmup_tokens=5.0, flops_utilization=0.3, params_per_layer="many"
    )
    found = ready(frame)
    assert (found.columns.params, found.columns.tokens, found.columns.target) == (params, tokens, loss)
    assert found.table.account == [f"mapped by their names: params = {params}, tokens = {tokens}, loss = {loss}"]
    assert found.rows.params.tolist() == GRID["N"].tolist() and found.rows.tokens.tolist() == GRID["D"].tolist()


def test_names_that_several_columns_have_are_listed_as_commands():
    frame = GRID.assign(total_params=GRID["N"] * 2, copy_of_params=GRID["N"])
    said = refused(frame)
    assert "has several columns that may be params (N, total_params), and each gives another law" in said
    assert "`python scripts/fit.py 'runs=the table' columns.tokens=D columns.params=total_params`" in said
    assert ready(frame, params="N").columns == Columns(params="N", tokens="D")
    # A variable that the law does without stops nothing.
    found = ready(GRID.assign(C=1e18, total_flops=2e18), params="N")
    assert found.columns.flops == "flops" and found.rows.derived == {"flops": "6 N D"}
    assert found.table.account[-1] == "left out: flops may be C or total_flops; name one with columns.flops=NAME"
    # A named column is never replaced.
    assert "has no column 'M'" in refused(GRID, params="M")


@pytest.mark.parametrize("column", ["epochs", "width", "flops", "flops_6nd", "params_total", "loss_parts", "x"])
@pytest.mark.parametrize("value", ["", "many", np.nan, -1.0])
def test_a_column_that_is_not_needed_stops_nothing(column, value):
    frame = GRID.assign(**{column: [1e7 * (1 + row) for row in range(24)] + [value]})
    found = ready(frame, params="N")
    assert found.rows.params.tolist() == GRID["N"].tolist()
    assert found.rows.flops.tolist() == (6 * GRID["N"] * GRID["D"]).tolist()


def test_what_depends_on_such_a_column_is_left_out_and_said():
    frame = GRID.assign(epochs=[1.0] * 24 + [np.nan], loss_parts="1 x", vocab_size="?")
    report = study(as_table(frame), FitConfig(runs="x", bootstrap=0))
    notes = " ".join(report["notes"])
    assert "Column epochs is not used, nor what depends on it: row 25, column epochs: 'nan' is not a positive" in notes
    assert "validation text is left out: the table, column loss_parts holds more than numbers" in notes
    assert report["fit"]["estimates"]["alpha"] == pytest.approx(0.34, abs=1e-6)
    assert report["moves"][0]["dropped"].startswith("smallest shape")


@pytest.mark.parametrize("column", ["data", "schedule", "learning_rate", "heads", "tokenizer"])
def test_a_column_that_is_mapped_is_no_setting(column):
    frame = GRID.rename(columns={"D": column}).assign(width=GRID["N"], depth=2)
    assert ready(frame, tokens=column).rows.tokens.tolist() == GRID["D"].tolist()
    with pytest.raises(UserError, match=f"column {column} varies"):
        admitted(as_table(frame.assign(D=GRID["D"])), Columns(), "chinchilla")


@pytest.mark.parametrize(
    ("lost", "use", "words"), [("D", "tokens", "C / (6 N)"), ("N", "params", "C / (6 D)"), ("C", "flops", "6 N D")]
)
def test_one_of_three_follows_from_the_others(lost, use, words):
    frame = GRID.assign(C=6 * GRID["N"] * GRID["D"]).drop(columns=lost)
    rows = ready(frame).rows
    assert rows.of(use) == pytest.approx(
        (6 * GRID["N"] * GRID["D"] if lost == "C" else GRID[lost]).to_numpy(), rel=1e-12
    )
    assert rows.derived == {use: words}
    result = fit(frame)
    assert result.estimates["alpha"] == pytest.approx(0.34, abs=1e-6)
    assert result.predicts.endswith(
        f"D = {words}" if use == "tokens" else f"N = {words}, D = D" if use == "params" else "D = D"
    )


def test_one_of_three_is_not_made_from_one():
    assert "has no column 'M'" in refused(GRID.assign(C=6 * GRID["N"] * GRID["D"]).drop(columns="N"), params="M")
    said = refused(GRID.drop(columns="D"))
    assert "has no column 'tokens': name the right one" in said


@pytest.mark.parametrize("word", ["done", "Completed", "finished", "SUCCESS", "ok"])
def test_words_that_mean_finished(word):
    found = ready(GRID.assign(status=word))
    assert len(found.rows) == 25 and found.table.notes == []


def test_states_that_do_not_are_counted_never_dropped_in_silence():
    state = ["crashed"] * 3 + ["running"] + ["finished"] * 21
    for column in ("State", "state", "status"):
        found = ready(GRID.assign(**{column: state}))
        assert len(found.rows) == 25
        assert found.table.notes == [
            f"Column {column} is crashed in 3, running in 1 of 25 rows, and they are fitted like the others: "
            f"`filter={column}!=crashed and {column}!=running` leaves them out (a run that W&B calls crashed may be "
            "whole)."
        ]
        chosen = ready(GRID.assign(**{column: state}), expression=f"{column}!=crashed and {column}!=running")
        assert len(chosen.rows) == 21 and chosen.table.notes == []
    lost = ready(GRID.assign(status=["failed"] * 2 + ["done"] * 23, loss=[np.nan] * 2 + GRID["loss"].tolist()[2:]))
    assert len(lost.rows) == 23 and len(lost.table.excluded) == 2
    assert lost.table.notes == ["Column status is failed in 2: these rows have no result and are left out."]


def test_states_that_nobody_knows_are_asked_for():
    said = refused(GRID.assign(status=["ended"] * 20 + ["done"] * 5))
    assert said == (
        "the table, column status is ended in 20, done in 5, and not all of these say whether a run finished: choose "
        "the rows, as in filter=status==ended"
    )
    assert len(ready(GRID.assign(status=["ended"] * 20 + ["done"] * 5), expression="status==ended").rows) == 20
    assert len(ready(GRID.assign(State=["Ohio"] * 25)).rows) == 25


@pytest.mark.parametrize("value", ["NaN", "", None, float("nan"), "abc"])
def test_rows_without_a_number_are_dropped_by_a_filter(value):
    frame = GRID.astype({"loss": object})
    frame.loc[4, "loss"] = value
    assert len(ready(frame, expression="loss!=nan").rows) == 24
    assert refused(frame, expression="loss==nan").startswith("the table, row 5, column loss: ")
    assert "filter: loss>nan says nothing" in refused(frame, expression="loss>nan")
    note = GRID.assign(note=["", None, "x", "NaN", *["y"] * 21])
    assert len(ready(note, expression="note!=nan").rows) == 22


COUNTS = {"thousands": 1e3, "millions": 1e6, "billions": 1e9}


@pytest.mark.parametrize(
    ("params", "tokens", "flops", "offer"),
    [
        (1e9, 1e9, None, "`units.params=1e9 units.tokens=1e9`"),
        (1e6, 1, None, "`units.params=1e6`"),
        (1, 1e9, None, "`units.tokens=1e9`"),
        (1, 1e6, None, "`units.tokens=1e6`"),
        (1, 1, 8.64e19, "`units.flops=8.64e19`"),
        (1, 1, 1e18, "`units.flops=1e18`"),
        (1e3, 1e3, 1, "`units.params=1e3 units.tokens=1e3`"),
        (1e9, 1e9, 1e18, "`units.params=1e9 units.tokens=1e9 units.flops=1e18`"),
    ],
)
def test_counts_that_cannot_be_meant_are_refused_and_the_unit_offered(params, tokens, flops, offer):
    frame = GRID.assign(N=GRID["N"] / params, D=GRID["D"] / tokens)
    if flops:
        frame = frame.assign(C=6 * GRID["N"] * GRID["D"] / flops)
    said = refused(frame)
    assert (
        offer.replace("1e3", "1000").replace("1e6", "1e6") in said
        and "probably" in said
        and "=1` where it is right" in said
    )
    named = {"params": params, "tokens": tokens, "flops": flops or 1}
    found = ready(frame, units=Units(**{name: worth for name, worth in named.items() if worth != 1}))
    assert found.rows.params == pytest.approx(GRID["N"].to_numpy()) and found.rows.tokens == pytest.approx(
        GRID["D"].to_numpy()
    )
    assert found.rows.flops == pytest.approx((6 * GRID["N"] * GRID["D"]).to_numpy())


def test_rows_in_another_unit_are_named():
    frame = GRID.assign(N=[*GRID["N"][:-2], 100.0, 100.0])
    assert "N is 100 to 100 in row 24, row 25, and no model has so few parameters" in refused(frame)
    flops = (6 * GRID["N"] * GRID["D"]).where(GRID.index != 3, 6e-3 * GRID["N"] * GRID["D"] / 6e6)
    assert "times N x D in row 4, where training takes about 6" in refused(GRID.assign(C=flops))
    assert len(ready(GRID.assign(N=GRID["N"] / 1e4), units=Units(params=1)).rows) == 25


@pytest.mark.parametrize(
    ("worth", "unit"), [("billions", 1e9), ("Millions", 1e6), ("pf-days", 8.64e19), ("2048", 2048.0), (6, 6.0)]
)
def test_units_by_word_and_by_number(worth, unit):
    assert Units(flops=worth).worth() == {"flops": unit}


@pytest.mark.parametrize("worth", ["dozens", 0, -1, "nan", True, [1]])
def test_what_is_no_unit(worth):
    with pytest.raises(UserError, match=r"units\.tokens=.* is no unit: give a number, or one of thousands, millions"):
        Units(tokens=worth).worth()


def notes_on(frame, **choices):
    found = ready(frame, **choices)
    return doubts(found.table, found.rows, found.columns, Units(), choices.get("target"))


def test_units_that_might_be_meant_are_noted():
    product = GRID["N"] * GRID["D"]
    assert notes_on(GRID.assign(C=6 * product)) == []
    assert "C is 1 times N x D, where training takes about 6, and `units.flops=6` makes N D of it" in notes_on(
        GRID.assign(C=product))[0]  # fmt: skip
    (said,) = notes_on(GRID.assign(C=(6 * product).where(GRID.index != 7, 30 * product)))
    assert said.startswith("C is 6 times N x D in row 1 and 30 times in row 8: a head that N leaves out does that")
    assert "`target_unit=bits_per_byte bytes_per_token=NUMBER`" in notes_on(GRID.assign(loss=GRID["loss"] / 6))[0]
    odd = GRID.assign(loss=GRID["loss"].where(GRID.index != 2, 14.0))
    assert notes_on(odd)[0].startswith(
        "loss is above 13 nats in row 3: they diverged, or the column is in another unit"
    )


@pytest.mark.parametrize(
    ("unit", "values", "name"),
    [
        ("bits", GRID["loss"] / np.log(2), "loss_in_bits"),
        ("perplexity", np.exp(GRID["loss"]), "val_ppl"),
        ("bits_per_byte", GRID["loss"] / np.log(2) / 4.2, "val_bpb"),
    ],
)
def test_losses_in_other_units_become_nats_and_are_asked_for(unit, values, name):
    frame = GRID.drop(columns="loss").assign(**{name: values})
    assert f"say `target_unit={unit}" in refused(frame) and "or `target_unit=nats`" in refused(frame)
    with pytest.raises(UserError, match=f"target_unit={unit}"):
        fit(frame)
    choices = {"target": unit, "bytes_per_token": 4.2 if unit == "bits_per_byte" else None}
    assert ready(frame, **choices).rows.loss == pytest.approx(GRID["loss"].to_numpy(), rel=1e-12)
    assert ready(frame, target="nats").rows.loss.tolist() == values.tolist()
    result = fit(frame, target_unit=unit, bytes_per_token=choices["bytes_per_token"])
    assert result.estimates["E"] == pytest.approx(1.7, abs=1e-5)


def fitted(frame, **choices):
    return [fit(frame, **choices)]


def combined(frame, **choices):
    return [member.fit for member in combine(frame, **choices).members if member.fit.law == "chinchilla"]


def compared(frame, **choices):
    both = pd.concat([frame.assign(optimizer=name, trunk=frame.index) for name in "ab"], ignore_index=True)
    return [compare(both, bootstrap=0, **choices).fit]


@pytest.mark.parametrize("way", [fitted, combined, compared])
def test_units_are_stated_or_asked_for_from_python_as_on_the_command_line(way):
    """The truth of plain counts and nats, found again where params are in millions and losses in bits."""
    frame = GRID.assign(N=GRID["N"] / 1e6, loss=GRID["loss"] / np.log(2))
    with pytest.raises(UserError, match="N is .* and no model has so few parameters: say what one is worth"):
        way(frame)
    with pytest.raises(UserError, match="bytes_per_token=0 is no mean length of tokens: give 1 to 20"):
        way(frame, units={"params": "millions"}, target_unit="bits_per_byte", bytes_per_token=0)
    found = way(frame, units={"params": "millions"}, target_unit="bits")
    for result in found:
        assert [result.estimates[name] for name in ("E", "A", "alpha")] == pytest.approx([1.7, 400, 0.34], rel=1e-3)


def test_losses_that_cannot_be_nats_are_asked_for_by_their_size():
    said = refused(GRID.assign(loss=np.exp(GRID["loss"])))
    assert "above 13 nats in every row" in said and "`target_unit=perplexity`" in said
    with pytest.raises(UserError, match="needs the mean bytes of a token to become nats: give bytes_per_token=NUMBER"):
        ready(GRID, target="bits_per_byte")
    assert ready(GRID.assign(bytes_per_token=2.0), target="bits_per_byte").rows.loss[0] == pytest.approx(
        GRID["loss"][0] * np.log(2) * 2)  # fmt: skip
    with pytest.raises(UserError, match="row 1, column loss: 0.5 is no perplexity, which is above 1"):
        ready(GRID.assign(loss=0.5), target="perplexity")


def test_the_units_of_our_own_cells_are_known(simulated):
    own = simulated().assign(config_hash="x")
    bits = own.assign(bits_per_byte=own["loss"] * 20)
    assert ready(bits, **{"target": None}).rows.loss.tolist() == own["loss"].tolist()
    found = prepared(as_table(bits), Columns(target="bits_per_byte"), "chinchilla", "", None, Units(), None, None)
    assert found.rows.loss.tolist() == bits["bits_per_byte"].tolist()


RATES = (0.0005, 0.001, 0.002, 0.004)
TUNED = pd.DataFrame([
    row | {"peak_lr": rate, "loss": row["loss"] * (1 + 0.012 * np.log2(rate / 0.002) ** 2), "run": f"{rate}-{index}"}
    for index, row in enumerate(GRID.to_dict("records")) for rate in RATES
])  # fmt: skip


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("peak_lr", RATES, True), ("batch_size", (8, 16, 32, 64), True), ("optimizer_name", "abcd", True),
        ("activation", "abcd", True), ("random_seed", (0, 1, 2, 3), False), ("run_name", "abcd", False),
        ("final_grad_norm", (0.1, 0.2, 0.3, 0.4), False), ("wall_time", (5, 6, 7, 8), False),
    ],
)  # fmt: skip
def test_rows_of_one_cell_that_differ_in_a_setting_are_no_repeats(column, values, found):
    frame = GRID.loc[GRID.index.repeat(4)].reset_index(drop=True).assign(**{column: list(values) * 25})
    ours = ready(frame)
    varied = settings(ours.table, ours.rows, ours.columns)
    assert varied == ([column] if found else [])
    labels = repeated(ours.table, np.zeros(100, int), varied)
    assert len(set(labels.tolist())) == (4 if found else 1)


def test_settings_give_no_noise_and_seeds_do():
    report = study(as_table(TUNED), FitConfig(runs="x", bootstrap=0))
    assert report["seed_noise"] is None and report["lack_of_fit"] is None
    assert report["quality"]["duplicates"]["count"] == 0
    assert report["notes"][0] == (
        "Rows of one params and tokens differ in peak_lr (4 values): they are no repeats, so no noise is taken from "
        "their spread, and all of them are fitted; `best_of=peak_lr` keeps the best of each."
    )
    again = pd.concat([TUNED.assign(seed=0), TUNED.assign(seed=1, loss=TUNED["loss"] * 1.01)], ignore_index=True)
    noise = study(as_table(again), FitConfig(runs="x", bootstrap=0))["seed_noise"]
    # Two values 1 % apart: sd = log(1.01) / sqrt(2), one degree of freedom for each of 100.
    assert noise["sd_relative"] == pytest.approx(np.log(1.01) / np.sqrt(2), rel=1e-9)
    assert noise["degrees_of_freedom"] == 100


def test_the_best_of_a_setting():
    found = ready(TUNED, best="peak_lr")
    assert found.rows.loss == pytest.approx(GRID["loss"].to_numpy(), rel=1e-12)
    assert found.table.frame["peak_lr"].tolist() == [0.002] * 25
    assert len(found.table.excluded) == 75 and found.table.excluded[0]["why"] == "not the best of peak_lr"
    assert "lies 1.03 standard deviations" in found.notes[0] and "winner's curse" in found.notes[0]
    # By the mean over seeds, so that one lucky seed chooses nothing.
    two = pd.concat([TUNED.assign(seed=0), TUNED.assign(seed=1)], ignore_index=True)
    two.loc[0, "loss"] = two["loss"][2] * 0.99
    assert set(ready(two, best="peak_lr").table.frame["peak_lr"]) == {0.002}
    assert "best_of=rate: the table has no column 'rate'" in refused(TUNED, best="rate")
    assert "no two rows of one params and tokens differ in it" in refused(GRID.assign(rate=1), best="rate")
    assert fit_config(["runs=x", "best_of=lr,batch size"]).best_of == "lr,batch size"


@pytest.mark.parametrize(("count", "value"), [(1, 0.0), (2, 0.564190), (3, 0.846284), (4, 1.029375), (5, 1.162964)])
def test_the_least_of_some_normal_numbers(count, value):
    """Harter 1961, table 1, expected values of normal order statistics."""
    assert expected_least(count) == pytest.approx(value, abs=1e-5)


def test_the_account_is_kept(tmp_path):
    path = tmp_path / "theirs.csv"
    GRID.to_csv(path, index=False)
    report = study(read_runs(path), FitConfig(runs=str(path), bootstrap=0))
    assert report["source"]["account"] == [
        f"read: {path} (CSV with commas), 25 rows of 3 columns", "mapped by their names: params = N, tokens = D",
    ]  # fmt: skip
    assert report["source"]["columns"]["params"] == "N"
