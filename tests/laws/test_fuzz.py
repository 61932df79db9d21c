"""Any table under any law and loss: a result or one sentence, and no warning, no nan, no traceback on the way."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.laws import fit
from harness.laws.forms import FORMS
from harness.laws.forms.smooth import Smooth
from harness.laws.solving.losses import LOSSES
from harness.laws.table.filter import select
from harness.laws.table.table import read_runs

pytestmark = pytest.mark.filterwarnings("error")
# A fit is too slow to shrink an example with.
PROFILE = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
VARIABLES = ("params_with_head", "tokens", "width", "depth", "unique_tokens", "flops")


def powers(x, scale):
    return scale * (x / np.exp(np.log(x).mean())) ** -0.4


@st.composite
def tables(draw):
    """Numbers that a reader lets through: plain grids, ranges of 40 orders of magnitude, ties; losses that follow a
    law exactly, with noise, not at all, or hardly vary."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = draw(st.integers(7, 14))
    spread = draw(st.sampled_from([0.3, 2.0, 20.0]))
    levels = draw(st.sampled_from([2, 3, 5, 100]))
    middle = 10.0 ** draw(st.sampled_from([-8, 0, 6, 20]))
    frame = pd.DataFrame(
        {
            name: middle
            * np.exp(np.clip(spread, 0, 20) * generator.uniform(-1, 1, levels))[generator.integers(0, levels, rows)]
            for name in VARIABLES
        }
    ).clip(1e-11, 1e29)
    kind = draw(st.sampled_from(["law", "noise", "flat", "growing", "huge", "steps"]))
    law = 1 + powers(frame["params_with_head"], 0.5) + powers(frame["tokens"], 0.5)
    noise = generator.standard_normal(rows)
    frame["loss"] = {
        "law": law,
        "noise": law * np.exp(0.05 * noise),
        "flat": 3 + 1e-15 * (noise > 1) + 1e-9 * (noise > 1.5),
        "growing": 1 / law,
        "huge": np.exp(20 * noise),
        "steps": np.where(noise > 0, 2.0, 3.0),
    }[kind]
    frame["loss"] = frame["loss"].clip(1e-11, 1e29)
    if draw(st.booleans()):
        frame["trunk"] = generator.integers(0, 3, rows)
    return frame


@pytest.mark.parametrize("law", FORMS)
def test_any_numbers_give_a_result_or_a_sentence(law):
    # Laws without written derivatives take ten times as long.
    @settings(PROFILE, max_examples=1 if isinstance(FORMS[law], Smooth) else 4)
    @given(tables(), st.sampled_from(LOSSES))
    def any_table(table, loss):
        check(table, law, loss)

    any_table()


def check(table, law, loss):
    try:
        result = fit(table, law=law, loss=loss, units={"params": 1, "tokens": 1, "flops": 1}, target_unit="nats")
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert all(np.isfinite(value) for value in result.estimates.values())
    assert np.isfinite(result.objective)
    assert set(result.intervals) == set(result.estimates)
    for interval in result.intervals.values():
        assert interval is None or (np.isfinite(interval).all() and interval[0] <= interval[1])
    assert result.certificate.certified == (not result.certificate.reasons)


CELLS = st.one_of(
    st.sampled_from(
        ["1", "2.5", "1e6", "-3", "0", "nan", "inf", "", " ", "wsd", "True", "3,14", "1e999", "\u00a0", "é"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=4),
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "utf-32"])


@settings(PROFILE, max_examples=max(300, settings().max_examples))
@given(st.data(), st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n", "\r", "\n\n"]), ENCODINGS)
def test_any_csv_gives_a_table_or_a_sentence(tmp_path_factory, data, mark, end, encoding):
    names = data.draw(st.lists(st.one_of(st.sampled_from([*VARIABLES, "loss", "status", "cell"]), CELLS), max_size=5))
    rows = data.draw(st.lists(st.lists(CELLS, min_size=len(names), max_size=len(names)), max_size=4))
    quote = data.draw(st.sampled_from(["", '"']))
    text = end.join(mark.join(f"{quote}{cell}{quote}" for cell in row) for row in [names, *rows])
    path = tmp_path_factory.mktemp("fuzz") / "runs.csv"
    path.write_bytes(text.encode(encoding, errors="replace"))
    try:
        table = read_runs(path)
        for name in table.frame.columns:
            values = table.numbers(name)
            assert (values > 0).all() and np.isfinite(values).all()
        fit(table)
    except UserError as error:
        assert "\n" not in str(error) and "\r" not in str(error)
        assert str(path) in str(error)


TERMS = st.one_of(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["loss", "width", "kept", "run", "when", "no"]),
        st.sampled_from(["==", "!=", ">", "<", ">=", "<=", "=", " ~ ", " in "]),
        st.sampled_from(["1", "'a'", "nan", "1e999", "-0", "True", "", "x y", "2026-01-01", "_"]),
    ),
    st.sampled_from(["kept", "loss", "(", "not kept", "and", " "]),
    st.text(max_size=6),
)
FILTERED = pd.DataFrame(
    {
        "loss": [1.0, np.nan, 3.0],
        "width": ["48", "x", ""],
        "kept": pd.array([True, None, False], dtype="boolean"),
        "run": ["a", None, "b"],
        "when": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
    }
)


@settings(PROFILE, max_examples=max(300, settings().max_examples))
@given(st.lists(TERMS, max_size=3), st.sampled_from([" and ", "  AND ", " or ", ""]))
def test_any_filter_keeps_rows_or_gives_a_sentence(terms, joint):
    try:
        keep = select(FILTERED, joint.join(terms), "the table")
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert keep.dtype == bool and keep.shape == (3,)
