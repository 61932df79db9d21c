"""Every form in which people hand over a table gives the numbers that were written, or one sentence."""

import bz2
import gzip
import io
import json
import lzma
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.laws.fit import fit_rows
from harness.laws.table.entry import prepared
from harness.laws.table.rows import Columns
from harness.laws.table.table import read_runs
from harness.laws.table.units import Units

N, D, L = [1e6, 2.5e6, 1e7, 4e7], [1e9, 2e9, 1.5e9, 3e9], [3.14159, 2.75, 3.0, 2.5]
FRAME = pd.DataFrame({"N": N, "D": D, "loss": L})
CSV = FRAME.to_csv(index=False)


def grouped(value: float, mark: str) -> str:
    return f"{value:,.0f}".replace(",", mark)


def rows_of(n, d, loss, mark, quote="", end=""):
    lines = [mark.join(f"{quote}{part}{quote}" for part in row) + end for row in zip(n, d, loss, strict=True)]
    return "\n".join([mark.join(["N", "D", "loss"]) + end, *lines]) + "\n"


def commas(values):
    return [str(value).replace(".", ",") for value in values]


def arrow(form, content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, form) as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def zipped(content, name="runs.csv"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__MACOSX/._runs.csv", b"\0")
        archive.writestr(name, content)
    return buffer.getvalue()


def parquet(frame):
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    return buffer.getvalue()


RECORDS = FRAME.to_dict("records")
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)
NESTED = "".join(
    json.dumps({"config": {"N": r["N"], "D": str(r["D"])}, "summary": {"loss": r["loss"]}}) + "\n" for r in RECORDS
)
SPREADSHEET = rows_of([grouped(n, ",") for n in N], [grouped(d, ",") for d in D], L, ",", '"', ',"",')
GERMAN = rows_of([grouped(n, ".") for n in N], [grouped(d, ".") for d in D], commas(L), ";", end=";;")
FORMS = {
    "plain": ("r.csv", CSV),
    "tabs": ("r.tsv", CSV.replace(",", "\t")),
    "decimal commas": ("r.csv", rows_of(commas(N), commas(D), commas(L), ";")),
    "decimal commas in tabs": ("r.csv", rows_of(commas(N), commas(D), commas(L), "\t")),
    "a mark within a name": ("r.csv", GERMAN.replace("loss", "loss,nats", 1)),
    "thousands and empty columns": ("r.csv", SPREADSHEET),
    "points between thousands": ("r.csv", GERMAN),
    "spaces between thousands": (
        "r.csv",
        rows_of([grouped(n, "\u202f") for n in N], [grouped(d, " ") for d in D], L, ","),
    ),
    "apostrophes": ("r.csv", rows_of([grouped(n, "'") for n in N], [grouped(d, "_") for d in D], L, ",")),
    "sep": ("r.csv", "sep=;\r\n" + GERMAN),
    "index": ("r.csv", FRAME.to_csv()),
    "lines": ("r.jsonl", LINES),
    "lines without a name": ("r.txt", LINES),
    "nested": ("r.ndjson", NESTED),
    "list": ("r.json", json.dumps(RECORDS, indent=1)),
    "columns": ("r.json", FRAME.to_json()),
    "columns of lists": ("r.json", json.dumps(FRAME.to_dict("list"), indent=1)),
    "parquet": ("r.parquet", parquet(FRAME)),
    "parquet by its content": ("r.dat", parquet(FRAME)),
    "parquet of texts": ("r.parquet", parquet(FRAME.astype(str))),
    "parquet with an index": ("r.parquet", parquet(FRAME.set_index("N"))),
    "gzip": ("r.csv.gz", gzip.compress(CSV.encode())),
    "gzip of lines": ("r.json.gz", gzip.compress(LINES.encode())),
    "bzip2": ("r.csv.bz2", bz2.compress(CSV.encode())),
    "xz": ("r.csv.xz", lzma.compress(CSV.encode())),
    "zstd": ("r.jsonl.zst", arrow("zstd", LINES.encode())),
    "lz4": ("r.csv.lz4", arrow("lz4", CSV.encode())),
    "zip": ("r.zip", zipped(CSV)),
    "gzip named csv": ("r.csv", gzip.compress(GERMAN.encode("utf-16"))),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_numbers(tmp_path, form):
    name, content = FORMS[form]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = read_runs(path)
    found = prepared(table, Columns(), "kaplan_params", "", None, Units(), None, None).rows
    assert (found.params.tolist(), found.tokens.tolist(), found.loss.tolist()) == (N, D, L)
    assert table.account[0].startswith(f"read: {path} (") and table.account[0].count("\n") == 0
    assert len(table.lines) == table.rows_read == 4


def test_the_account_says_what_was_done(tmp_path):
    (tmp_path / "r.csv").write_text(GERMAN)
    assert read_runs(tmp_path / "r.csv").account == [
        f"read: {tmp_path / 'r.csv'} (CSV with semicolons), 4 rows of 3 columns",
        "left out: 2 columns without a name and a value",
        "converted: N, D, points between thousands",
        "converted: loss, commas as decimals",
    ]


@pytest.mark.parametrize(
    ("content", "column", "value"),
    [
        # What only one country writes decides, in the column or else in the file.
        ("a;b\n1,5;2,750\n", "b", 2.75),
        ('a,b\n0.5,"2,750"\n', "b", 2750.0),
        ("a;b\n1.000.000;2,750\n", "b", 2.75),
        ("a;b\n0,001;1.234,5\n", "b", 1234.5),
        ("a;b\n0,125;3\n", "a", 0.125),
        # What both write otherwise is refused.
        ("a;b\n1,234;1\n", "a", "has a comma"),
        ("a;b\n1,25;1.234\n", "b", "'1.234' may be a decimal or have a mark of thousands"),
        ("a;b;c\n1,25;1.25;1,234\n", "c", "has a comma"),
        ('a,b\n"1,23,456",1\n', "a", "has a comma"),
        ('a,b\n"12 34",1\n', "a", "is not a positive number"),
    ],
)
def test_commas_and_points(tmp_path, content, column, value):
    path = tmp_path / "r.csv"
    path.write_text(content)
    if isinstance(value, float):
        assert read_runs(path).numbers(column).tolist() == [value]
        return
    with pytest.raises(UserError, match=value) as caught:
        read_runs(path).numbers(column)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_names_that_look_like_numbers_stay_names(tmp_path):
    (tmp_path / "r.csv").write_text("cell,run,width,kept,loss\n1,007,48,true,3\n2,7,48.0,False,\n")
    frame = read_runs(tmp_path / "r.csv").frame
    assert frame["cell"].tolist() == ["1", "2"] and frame["run"].tolist() == ["007", "7"]
    assert frame["width"].tolist() == [48.0, 48.0] and frame["kept"].tolist() == [True, False]
    assert frame["loss"].tolist()[0] == 3.0 and np.isnan(frame["loss"].tolist()[1])


CHART = '"Step","a - loss","a - loss__MIN","a - loss__MAX"\n"1","3","3","3"\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", CHART, "is the export of a W&B chart, .* export the table of runs instead"),
        ("r.csv.gz", gzip.compress(CSV.encode(), mtime=0)[:40], "is a damaged gzip file"),
        ("r.csv.gz", gzip.compress(b" ", mtime=0), "is empty within its gzip"),
        ("r.zip", zipped(CSV, "[Content_Types].xml"), "is a spreadsheet: export the sheet as CSV"),
        ("r.zip", zipped(CSV)[:-9], "is a damaged zip file"),
        ("r.jsonl", LINES + '{"N": 1', "row 5: not JSON"),
        ("r.jsonl", "3\n4\n", "not JSON|no table"),
        ("r.json", "[1, 2]", "row 1: '1' is no JSON object"),
        ("r.json", '{"N": 1, "D": ', "is not JSON"),
        ("r.json", "{}", "has no columns"),
        ("r.parquet", parquet(FRAME[:0]), "has no rows"),
        ("r.csv", "loss,loss,N\n1,2,3\n", "names the column 'loss' twice"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        read_runs(tmp_path / name).numbers("loss")
    assert "\n" not in str(caught.value)


# The numbers of a small table, and the ways in which each of its columns may be written.
NUMBERS = st.one_of(st.integers(1, 10**10).map(float), st.sampled_from([0.001, 0.125, 1.234, 2.5, 3.14159, 12.75, 1e6]))
WAYS = {
    "plain": lambda value: f"{value:.10g}",
    "thousands": lambda value: f"{value:,.5f}".rstrip("0").rstrip("."),
    "comma": lambda value: f"{value:.10g}".replace(".", ","),
    "european": lambda value: f"{value:,.5f}".rstrip("0").rstrip(".").translate(str.maketrans(",.", ".,")),
    "spaces": lambda value: f"{value:,.5f}".rstrip("0").rstrip(".").replace(",", " "),
    "exponent": lambda value: f"{value:.9e}",
}
HEADS = st.sampled_from(
    ["N", "D", "C", "loss", "val_loss", "n_params", "tokens", "status", "State", "seed", "lr", "", "x"]
)
ODD = st.sampled_from(
    ["", "nan", "-", "NA", "done", "crashed", "1e400", "-3", "0", "True", "é", "1,234", "1.234", "a,b"]
)
PACKS = {
    "none": lambda content: content, "gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress,
    "zip": zipped, "zstd": lambda content: arrow("zstd", content), "cut": lambda content: gzip.compress(content)[:-6],
}  # fmt: skip


@st.composite
def files(draw):
    """The bytes of a table, what its clean columns hold, and whether commas mean one thing in all of it."""
    names = draw(st.lists(HEADS, min_size=1, max_size=5))
    count = draw(st.integers(0, 9))
    mark = draw(st.sampled_from([",", ";", "\t"]))
    columns, truth = [], {}
    for name in names:
        values = draw(st.lists(NUMBERS, min_size=count, max_size=count))
        way = draw(st.sampled_from(list(WAYS)))
        texts = [WAYS[way](value) for value in values]
        if draw(st.integers(0, 3)) == 0 and texts:
            texts[draw(st.integers(0, count - 1))] = draw(ODD)
        elif names.count(name) == 1 and name:
            truth[name] = (way, texts, values)
        columns.append(texts)
    form = draw(st.sampled_from(["csv", "jsonl", "parquet"]))
    if form == "csv":
        quoted = [[f'"{text}"' for text in row] for row in [names, *zip(*columns, strict=True)]]
        content = "\n".join(mark.join(row) for row in quoted).encode(draw(st.sampled_from(["utf-8", "utf-16"])))
    elif form == "jsonl":
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        content = parquet(pd.DataFrame(dict(zip(names, columns, strict=True))))
    return f"r.{form}", PACKS[draw(st.sampled_from(list(PACKS)))](content), truth


@settings(
    max_examples=max(300, settings().max_examples), deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
@given(
    files(), st.sampled_from(["chinchilla", "kaplan_params", "kaplan_flops_floor"]), st.sampled_from(["", "loss!=nan"])
)
@example(("r.csv", b"N,D,loss\n", {}), "chinchilla", "")
def test_any_table_in_any_form_gives_its_numbers_or_a_sentence(tmp_path_factory, file, law, expression):
    name, content, truth = file
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(content)
    try:
        table = read_runs(path)
        conventions = {way for way, texts, _ in truth.values() if any(mark in text for mark in ",." for text in texts)}
        # 1.399 alone is a decimal: no other value of such a file says that points stand between thousands.
        if "european" in conventions and not any("," in text for _, texts, _ in truth.values() for text in texts):
            conventions = set()
        for column, (_, _, values) in truth.items():
            found = table.spare(column) if column in table.frame.columns and len(conventions) == 1 else None
            # Where every column is written alike, a value is read as it was meant or not at all.
            if found is not None and len(found) == len(values) and len(truth) == len(table.frame.columns):
                assert found.tolist() == pytest.approx(values, rel=1e-6)
        ready = prepared(table, Columns(), law, expression, None, Units(), None, None)
        result = fit_rows(ready.rows, ready.columns, law, "log_mse")
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return
    assert all(np.isfinite(value) for value in result.estimates.values())
