import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.laws import fit
from harness.laws.table.filter import select
from harness.laws.table.table import read_runs

HEADER = "params_with_head,tokens,loss\n"
GOOD = "".join(
    f"{n},{d},{2 + (n / 1e5) ** -0.4 + (d / 1e6) ** -0.4}\n" for n in (1e5, 3e5, 9e5) for d in (1e6, 2e6, 4e6)
)


def refused(path) -> str:
    with pytest.raises(UserError) as caught:
        fit(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["is empty"]),
        (HEADER, ["has a header but no rows"]),
        ("params_with_head,tokens\n1,2\n", ["no column 'loss'"]),
        ("loss,tokens,params_with_head,loss\n1,2,3,4\n", ["column 'loss' twice"]),
        (HEADER + GOOD + "1e5,1e6,abc\n", ["row 11", "column loss", "'abc'"]),
        (HEADER + GOOD + "1e5,1e6,\n", ["row 11", "column loss", "an empty field"]),
        (HEADER + GOOD + "1e5,1e6,nan\n", ["row 11", "column loss", "'nan'"]),
        (HEADER + "1e5,-4,2\n" + GOOD, ["row 2", "column tokens", "'-4'", "positive"]),
        (HEADER + "0,4,2\n" + GOOD, ["row 2", "column params_with_head", "'0'"]),
        (HEADER + "1e300,4,2\n" + GOOD, ["row 2", "'1e300'"]),
        (HEADER + "\n\n1e5,1e6,inf\n" + GOOD, ["row 4", "'inf'"]),
        (HEADER + "1e5,1e6\n" + GOOD, ["row 2", "2 fields where the header names 3"]),
        (HEADER + "1e5,1e6,3.5\n", ["1 usable row", "at least 6"]),
        (HEADER + GOOD.replace("900000.0", "300000.0"), ["params_with_head", "2 distinct levels", "at least 3"]),
        (HEADER + '1e5,1e6,"3.5\n', ["not a CSV"]),
        (HEADER + GOOD + "1e5,1e6,1e-300\n", ["row 11", "column loss", "'1e-300'", "between 1e-12 and 1e30"]),
        (
            HEADER.replace("loss", '"error\n in nats"') + GOOD,
            ["no column 'loss'", "out of params_with_head, tokens, error in"],
        ),
        (
            HEADER + "".join(f"{n}e5,1e6,3.5\n" for n in range(1, 9)),
            ["column loss is 3.5 in every row, and no law follows"],
        ),
        (HEADER + GOOD.replace("4000000.0", "1000000.0"), ["column tokens has 2 distinct levels", "at least 3"]),
    ],
)
def test_bad_tables_are_one_sentence(tmp_path, content, parts):
    path = tmp_path / "runs of mine.csv"
    path.write_text(content)
    message = refused(path)
    for part in ["runs of mine.csv", *parts]:
        assert part in message


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_bytes(b"loss,tokens\n\xff\xfe1,2\n")
    assert "not UTF-8 at byte 12" in refused(path)
    (tmp_path / "runs.parquet").write_bytes(b"not parquet")
    assert "not a Parquet file" in refused(tmp_path / "runs.parquet")
    assert "does not exist" in refused(tmp_path / "none.csv")
    assert "harness.tracking.table.fetch makes a folder of it" in refused("wandb://a/b/c")
    assert "not list" in refused([1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "params_with_head;tokens;loss\n1e5;1e6;3,141\n",
            "row 2, column loss: '3,141' has a comma: write decimals with a point, and thousands without any mark",
        ),
        (
            HEADER + '"1,000",1e6,3\n',
            "row 2, column params_with_head: '1,000' has a comma: write decimals with a point, and thousands "
            "without any mark",
        ),
        (
            HEADER + "125M,1e6,3.5\n",
            "row 2, column params_with_head: '125M' is not a positive number between 1e-12 and 1e30: correct it, or "
            "leave the row out with filter=",
        ),
        (HEADER + "1e5,1e6,3\0\n", "holds a zero byte after 38 characters: save it as a UTF-8 CSV"),
    ],
)
def test_numbers_that_are_written_otherwise(tmp_path, content, message):
    path = tmp_path / "runs.csv"
    path.write_text(content)
    assert refused(path) in (f"{path}, {message}", f"{path} {message}")


def test_a_long_list_of_columns_is_cut(tmp_path):
    message = refused({f"c{index}": [1.0] for index in range(500)})
    assert message.endswith(", out of " + ", ".join(f"c{index}" for index in range(20)) + " and 480 more")


def test_a_table_with_gaps_where_no_number_is_needed(simulated):
    """Of a shape, a trunk or a data set that some rows do not name."""
    table = simulated(noise=0.001).astype({"width": float, "trunk": object})
    table.loc[0, ["trunk", "width"]] = None
    table["depth"] = table["depth"].astype("Int64").where(table.index != 3)
    assert len(fit(table, filter="tokens>=1").rows) == 32
    assert len(fit(table, filter="depth>=1").rows) == 31
    assert "column data varies (nan, sotu)" in refused(table.assign(data=["sotu"] * 31 + [np.nan]))


@pytest.mark.parametrize("values", [[[1]], [1j], [pd.Timestamp("2026-01-01")], [{}], [10**400], [float("nan")]])
def test_values_that_are_no_numbers(values):
    frame = pd.DataFrame({"params_with_head": [1.0], "tokens": [1.0], "loss": values})
    assert "row 1, column loss: " in refused(frame)


@pytest.mark.parametrize(
    "write", ["bom", "semicolon", "quoted", "parquet", "frame", "utf-16", "old mac", "windows", "tab", "spaces"]
)
def test_every_way_of_writing_gives_the_same_fit(tmp_path, write):
    plain = tmp_path / "plain.csv"
    plain.write_text(HEADER + GOOD)
    frame, path = pd.read_csv(plain), tmp_path / "other.csv"
    if write == "bom":
        path.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    elif write == "semicolon":
        frame.to_csv(path, index=False, sep=";")
    elif write == "quoted":
        frame.to_csv(path, index=False, quoting=1)
    elif write == "parquet":
        path = tmp_path / "other.parquet"
        frame.to_parquet(path)
    elif write == "utf-16":
        path.write_text(plain.read_text().replace(",", "\t"), encoding="utf-16")
    elif write == "old mac":
        path.write_bytes(plain.read_bytes().replace(b"\n", b"\r"))
    elif write == "windows":
        path.write_bytes(plain.read_bytes().replace(b"\n", b"\r\n"))
    elif write == "tab":
        frame.to_csv(path, index=False, sep="\t")
    elif write == "spaces":
        path.write_text("\n  \n" + plain.read_text().replace(",", " , "))
    result = fit(frame if write == "frame" else path, loss="log_mse")
    assert result.estimates == pytest.approx(fit(plain, loss="log_mse").estimates, rel=1e-9)
    assert result.estimates["alpha"] == pytest.approx(0.4, abs=1e-5)


def test_columns_of_a_frame():
    frame = pd.DataFrame({"tokens": [1.0], "x": [1.0]})
    frame.columns = ["loss", "loss"]
    assert "two columns 'loss'" in refused(frame)
    assert "true and false" in refused({"loss": [True], "tokens": [1.0], "params_with_head": [1.0]})
    assert "do not form rows" in refused({"loss": [1.0, 2.0], "tokens": [1.0]})
    assert "no finished rows" in refused({"status": ["failed"], "loss": [1.0]})


def test_only_shape_tokens_and_seed_may_vary(simulated):
    table = simulated()
    table.loc[3, "schedule"] = "cosine"
    assert "column schedule varies (cosine, wsd)" in refused(table)
    assert "filter=schedule==cosine" in refused(table)
    assert len(fit(table, filter="schedule==wsd").rows) == 31
    rate = simulated().assign(learning_rate=lambda t: 1 / t.width)
    assert len(fit(rate).rows) == 32
    rate.loc[0, "learning_rate"] = 0.5
    assert "column learning_rate varies within width 48 and depth 2" in refused(rate)


def test_unfinished_rows_are_left_out_and_listed(tmp_path, simulated):
    frame = simulated()
    frame["loss"] = frame["loss"].astype(object)
    frame.loc[5, ["status", "loss"]] = ["diverged", ""]
    frame.to_csv(tmp_path / "runs.csv", index=False)
    table = read_runs(tmp_path / "runs.csv")
    assert table.excluded == [{"cell": frame["cell"][5], "why": "status is diverged"}]
    assert len(fit(table).rows) == 31


def test_a_sweep_uses_the_cells_that_it_names(sweep):
    plan = yaml.safe_load((sweep / "sweep.yaml").read_text())
    plan["cells"] = [*plan["cells"][1:], {"cell": "w256"}]
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(plan))
    table = read_runs(sweep)
    assert len(table.frame) == 31
    assert table.excluded == [{"cell": "w48-d2-t1e+06-s0", "why": "not in sweep.yaml"}]
    assert table.notes == ["1 of 32 cells have no result: w256."]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("schema: 0\ncells: []\n", "has schema 0, this version reads 1: train into another name="),
        ("- 1\n", "is not the plan of a sweep"),
        ("a: [", "is not the plan of a sweep"),
    ],
)
def test_a_plan_of_another_schema(sweep, plan, message):
    (sweep / "sweep.yaml").write_text(plan)
    assert message in refused(sweep)


def test_a_law_that_is_no_name(sweep):
    plan = yaml.safe_load((sweep / "sweep.yaml").read_text())
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(plan | {"law": ["chinchilla"]}))
    assert "states the law ['chinchilla'], which is no name" in refused(sweep)


def test_a_sweep_that_is_broken(sweep):
    runs = (sweep / "runs.csv").read_text().splitlines(keepends=True)
    (sweep / "runs.csv").write_text("".join([*runs, runs[1]]))
    assert "lists the cell w48-d2-t1e+06-s0 twice" in refused(sweep)
    (sweep / "runs.csv").write_text(HEADER + GOOD)
    assert "no column 'cell'" in refused(sweep)
    (sweep / "runs.csv").unlink()
    assert "no runs.csv" in refused(sweep)


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("", [0, 1, 2, 3]),
        ("kept", [0, 1, 3]),
        ("width>=48", [1, 2, 3]),
        ("width > 48 and kept", [3]),
        ("schedule==wsd", [0, 1]),
        ("schedule != 'wsd'", [2, 3]),
        ("tokens<=2e6", [0, 1]),
        ("eval/c4 loss<3", [2, 3]),
    ],
)
def test_filter(expression, rows):
    frame = pd.DataFrame(
        {
            "kept": ["True", "true", "False", "1"],
            "width": ["32", "48", "48", "64"],
            "schedule": ["wsd", "wsd", "cosine", "cosine"],
            "tokens": [1e6, 2e6, 3e6, 4e6],
            "eval/c4 loss": [4.0, 3.0, 2.0, 1.0],
        }
    )
    assert np.flatnonzero(select(frame, expression, "the table")).tolist() == rows


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("height>3", "no column 'height'"),
        ("width=48", "'width=48' is not a comparison"),
        ("width>48 or kept", "no column|is not|needs a number"),
        ("__import__('os').system('true')", "is not a comparison"),
        ("width", "neither true nor false"),
        ("schedule>=wsd", "needs a number on the right"),
        ("schedule<3", "holds no numbers"),
        ("width>1000", "keeps none of the 32 rows"),
    ],
)
def test_filters_that_say_nothing(simulated, expression, message):
    with pytest.raises(UserError, match=message):
        fit(simulated(), filter=expression)


VALUES = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(1e3, 1e9),
    st.sampled_from([1.0, 2.0, 3.0, 1e6]),
    st.text(max_size=5),
    st.none(),
    st.booleans(),
)


# A fit is too slow to shrink an example with.
@settings(max_examples=80, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.data(), st.sampled_from(["chinchilla", "kaplan_flops"]), st.integers(0, 12))
def test_any_table_gives_a_result_or_a_user_error(data, law, rows):
    clean = data.draw(st.booleans())
    values = st.one_of(st.floats(1e-6, 1e12), st.sampled_from([1.0, 2.0, 3.0, 1e6])) if clean else VALUES
    names = st.sampled_from(["params_with_head", "tokens", "loss", "trunk", "width"])
    table = {name: data.draw(st.lists(values, min_size=rows, max_size=rows)) for name in data.draw(st.sets(names))}
    if clean:
        for name in ("params_with_head", "tokens", "loss"):
            table.setdefault(name, data.draw(st.lists(values, min_size=rows, max_size=rows)))
    try:
        loss = data.draw(st.sampled_from(["log_mse", "huber", "lad", "mse"]))
        result = fit(table, law=law, loss=loss, units={"params": 1, "tokens": 1, "flops": 1}, target_unit="nats")
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert all(np.isfinite(value) for value in result.estimates.values())
    assert np.isfinite(result.objective)
    for interval in result.intervals.values():
        assert interval is None or np.isfinite(interval).all()
    assert result.certificate.certified or result.certificate.reasons


@settings(max_examples=100, deadline=None)
@given(content=st.one_of(st.binary(max_size=80), st.text(alphabet="ab,;\n\"'1.-e\t\r\0", max_size=80).map(str.encode)))
def test_any_file_gives_a_table_or_a_user_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "runs.csv"
    path.write_bytes(content)
    try:
        table = read_runs(path)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert len(table.frame) == len(table.lines) > 0
