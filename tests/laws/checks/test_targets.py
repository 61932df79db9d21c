"""Fits to the losses on further texts: the same handling of each, and what cannot be fitted."""

import numpy as np

from harness.laws.checks.targets import targets_of
from harness.laws.settings import FitConfig
from harness.laws.study import study
from harness.laws.table.rows import Columns
from harness.laws.table.table import as_table


def table(frame, **texts):
    """Cells of our own with losses by ten parts, on the corpus that trains and on further texts shifted from it."""
    shift_K = np.array([-0.2, -0.1, -0.1, 0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.2])
    frame = frame.assign(config_hash="0", loss_se=0.01)
    for name, factor in {"": 1.0, **{f"_{name}": factor for name, factor in texts.items()}}.items():
        loss_R = frame["loss"].to_numpy() * factor
        parts = [" ".join(f"{part:.6f}" for part in row) for row in (loss_R[:, None] + shift_K * factor)]
        frame = frame.assign(**{f"loss{name}": loss_R, f"loss_se{name}": 0.01, f"loss_parts{name}": parts})
    return frame


def test_the_losses_of_texts_are_told_from_their_errors_and_parts(simulated):
    frame = table(simulated(), code=2.0, se_x=1.5)
    assert targets_of(as_table(frame)) == ["loss", "loss_code", "loss_se_x"]
    assert targets_of(as_table(frame.drop(columns="config_hash"))) == []


def test_a_text_of_twice_the_loss_has_twice_the_floor_and_the_same_exponents(simulated):
    frame = table(simulated(noise=0.001), code=2.0)
    found = study(as_table(frame), FitConfig(runs="v", bootstrap=0))
    first, second = found["by_text"]
    assert (first["target"], second["target"]) == ("loss", "loss_code")
    for name, factor in (("alpha", 1), ("beta", 1), ("a", 1), ("E", 2)):
        assert np.isclose(second["estimates"][name], factor * first["estimates"][name], rtol=1e-6)
        assert np.allclose(second["intervals"][name], factor * np.array(first["intervals"][name]), rtol=1e-4)
    of_code = study(as_table(frame), FitConfig(runs="v", bootstrap=0, columns=Columns(target="loss_code")))
    assert of_code["fit"] == second
    ends, own = found["validation_text"]["half_width"], of_code["validation_text"]["half_width"]
    # E of the whole is the mean of ten floors, whose standard error is their standard deviation over root 10.
    assert np.isclose(ends["E"], 2.262 * np.sqrt((2 * 0.04 + 4 * 0.01) / 9 / 10), rtol=1e-2)
    assert np.isclose(own["E"], 2 * ends["E"], rtol=1e-3)


def test_a_text_that_some_cell_lacks_is_left_out_with_its_name(simulated):
    frame = table(simulated(), code=2.0, math=3.0)
    frame["loss_code"] = frame["loss_code"].astype(object)
    frame.loc[2, "loss_code"] = ""
    found = study(as_table(frame), FitConfig(runs="v", bootstrap=0))
    assert [each["target"] for each in found["by_text"]] == ["loss", "loss_math"]
    assert (
        f"The exponents by text leave loss_code out: the table has no loss_code for {frame['cell'][2]}: issue the "
        "sweep again with validation=, that evaluates those whose weights it kept, or leave them out with "
        "filter=loss_code!=nan."
    ) in found["notes"]


def test_a_table_without_texts_has_no_exponents_by_text(simulated):
    assert study(as_table(table(simulated())), FitConfig(runs="v", bootstrap=0))["by_text"] == []
