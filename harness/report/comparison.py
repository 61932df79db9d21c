"""What compare.json says of a sweep's variants: sentences, a table, a figure, and the rows that a paper quotes."""

import csv
import io
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd

from harness.laws.display import digits, seal
from harness.laws.variants.multiplier import SIGNIFICANT, probability
from harness.records import axis_name
from harness.report import style
from harness.report.fields import Field, Table, number
from harness.report.figures import FLOPS, PANEL, Figure
from harness.report.inputs import SweepFiles
from harness.report.paper import quoted, render, tex
from harness.report.variants import variant_colour

FILES = ("variants.tex", "variants.csv")
# The columns of table and row: a multiplier's key, or another entry's, its words and its sign in LaTeX.
MULTIPLIERS = (
    ("equal_flops", "m at equal FLOPs", "$m_C$"),
    ("equal_tokens", "m at equal N and D", "$m$"),
    ("equal_time", "m at equal time", "$m_t$"),
)
FACTORS = (("params", "f (of N)", "$f$"), ("tokens", "g (of D)", "$g$"))
TESTS = (("exponents_shared", "p of shared exponents", "$p$ (exponents)"), ("neutral", "p of f = g", "$p$ ($f = g$)"))
DECADE = ("per_decade", "m's growth a decade of C", "$m_C$ per decade")


@dataclass(frozen=True)
class Compared:
    """The lines that scripts/compare.py prints of each variant, and how far they are to be trusted."""

    sentences: list[str]
    certified: bool
    seal: str
    law: str
    notes: list[str]


def compared(sweep: SweepFiles) -> Compared | None:
    """None without a comparison."""
    content = sweep.comparison
    if content is None:
        return None
    shared = ", ".join(content["shared"])
    return Compared(
        [entry["sentence"] for entry in content["variants"].values()],
        content["certificate"]["certified"],
        seal(content["certificate"]),
        f"{content['predicts']}; {f'{shared} shared by all' if shared else 'nothing shared'}",
        list(content["notes"]),
    )


def methods(sweep: SweepFiles) -> list[str]:
    """How the comparison came about."""
    content = sweep.comparison
    if content is None:
        return []
    choices, source, shared = content["choices"], content["source"], ", ".join(content["shared"]) or "nothing"
    return [
        f"The variants are compared by one law for all, L_v(N, D) = L(f_v N, g_v D) with {content['predicts']}, fitted "
        f"to {source['rows_used']} of {source['rows']} rows (filter {source.get('filter') or 'none'}; shared: "
        f"{shared}). m = f g. Intervals are 95 %: {choices['interval_method']}; bootstrap {choices['bootstrap']}, seed "
        f"{choices['seed']}. Cells of one shape, seed and budget count as pairs."
    ]


def multipliers(sweep: SweepFiles) -> Table | None:
    """A row a variant."""
    content = sweep.comparison
    if content is None:
        return None
    doubt = not content["certificate"]["certified"]
    rows = []
    for name, entry in content["variants"].items():
        ends = [entry["multiplier"][key] for key, *_ in MULTIPLIERS] + [entry[key] for key, *_ in FACTORS]
        row = [Field(name), *(_ends(each, doubt) for each in ends)]
        row += [_p(entry[key]["p"], doubt) for key, *_ in TESTS]
        row.append(_ends(entry[DECADE[0]], doubt))
        rows.append([*row, Field(_settings(content, name))] if content["settings"] else row)
    header = ["variant", *(words for _, words, _ in (*MULTIPLIERS, *FACTORS, *TESTS, DECADE))]
    baseline = content["baseline"]
    best = f" {baseline} at its best {_settings(content, baseline)}." if content["settings"].get(baseline) else ""
    return Table(
        "multipliers",
        f"What the variants are worth, against {content['baseline']}",
        f"The baseline at (f N, g D) has the loss of the variant at (N, D), so it needs m = f g times the compute. "
        f"{_where(content)} FLOPs and speeds count as known. p of shared exponents is of the same α and β for all; the "
        "growth of m is over ten times the compute at as many tokens a parameter, where each variant has its own α, β."
        + best,
        header + ["at its best"] * bool(content["settings"]),
        rows,
    )


def _settings(content: dict[str, Any], name: str) -> str:
    """The settings that a variant was found best at, as in `learning_rate 0.02 (largest tried)`."""
    ends = {"low": " (smallest tried)", "high": " (largest tried)", None: ""}
    found = content["settings"].get(name, {}).items()
    return ", ".join(f"{axis_name(key)} {best['best']:g}{ends[best['at_end']]}" for key, best in found) or "–"


def _where(content: dict[str, Any]) -> str:
    at = next(iter(content["variants"].values()))["at"]
    place = f"N = {style.count(at['params'])}, D = {style.count(at['tokens'])}, C = {style.scientific(at['flops'])}"
    return f"FLOPs, speeds and what moves with size are those at the baseline's largest cell, {place}."


def _ends(entry: dict[str, Any] | None, doubt: bool) -> Field:
    if entry is None or entry["estimate"] is None:
        return Field("–", mark="muted")
    low, high = entry["low"], entry["high"]
    if low is None or high is None:
        return Field(number(entry["estimate"]), doubt, interval="(no interval)")
    value, *ends = digits(entry["estimate"], (low, high))
    return Field(value, doubt, interval=f"[{ends[0]}, {ends[1]}]")


def _p(value: float | None, doubt: bool) -> Field:
    if value is None:
        return Field("–", mark="muted")
    text = probability(value).removeprefix("= ").replace(" ", "\u00a0")
    return Field(text, doubt, "bad" if value < SIGNIFICANT else "")


def by_compute(sweep: SweepFiles) -> Figure:
    """m against C with its 95 % band, a colour a variant: at equal training FLOPs, and at equal N and D."""
    content = sweep.comparison
    assert content is not None
    rows = pd.concat([_curve(name, entry, key) for name, entry in content["variants"].items()
                      for key in ("equal_flops", "equal_tokens")], ignore_index=True)  # fmt: skip
    certified = content["certificate"]["certified"]
    ends = [*rows.low, *rows.high] if certified else []
    middle = [1.0, *rows.estimate]
    # A band that knows nothing must not flatten what the others show.
    y_domain = style.padded([*middle, *(min(max(end, min(middle) / 3), max(middle) * 3) for end in ends)])
    panels = [
        _panel(rows[rows["at"] == key], [content["baseline"], *content["variants"]], title, y_domain, certified)
        for key, title in (("equal_flops", "a  at equal training FLOPs"), ("equal_tokens", "b  at equal N and D"))
    ]
    alike = {"alpha", "beta", "gamma"} & set(content["estimates"]) <= set(content["shared"])
    drift = (
        "The exponents are shared, so m at equal N and D is one number; at equal FLOPs it moves only as what a token "
        "costs does."
        if alike
        else "Each variant has exponents of its own, so m moves with size."
    )
    caption = (
        f"How many times as much compute {content['baseline']} needs as each variant for the same loss, with 95 % "
        "bands, from the baseline's cell of least compute to that of most, straight in log N and log D; above 1 the "
        f"variant is better. {drift}"
    ) + ("" if certified else " The fit is not certified, so its intervals are not drawn: see its reasons above.")
    return Figure("multipliers", "What the variants are worth by compute", caption, alt.hconcat(*panels))


def _curve(name: str, entry: dict[str, Any], key: str) -> pd.DataFrame:
    curve = entry["by_flops"]
    columns = {part: curve[part] for part in ("flops", "params", "tokens")} | curve[key]
    return pd.DataFrame(columns).astype(float).assign(variant=name, at=key)


def _panel(rows: pd.DataFrame, names: list[str], title: str, y_domain: tuple[float, float], banded: bool) -> Any:
    x = style.log_axis("flops", FLOPS, style.padded(rows.flops, 0.02), alt.X, label="power", most=6)
    words = "multiplier of compute m"
    y, low = (style.log_axis(name, words, y_domain, alt.Y, label="plain", most=9) for name in ("estimate", "low"))
    tips = [alt.Tooltip("variant:N"), alt.Tooltip("flops:Q", format=".3e")]
    tips += [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("estimate", "low", "high")]
    base = alt.Chart(rows).encode(x, variant_colour(names))
    even = alt.Chart(pd.DataFrame({"estimate": [1.0]})).mark_rule(color=style.INK).encode(y)
    layers = [even, base.mark_line(strokeWidth=2, clip=True).encode(y, tooltip=tips)]
    if banded and rows.low.notna().any():
        layers.insert(1, base.mark_area(opacity=0.2, clip=True).encode(low, alt.Y2("high"), tooltip=alt.value(None)))
    return alt.layer(*layers).properties(width=PANEL, height=PANEL, title=title)


def paper(sweep: SweepFiles) -> dict[str, str]:
    """The content of each file of FILES; none without a comparison."""
    if sweep.comparison is None:
        return {}
    return dict(zip(FILES, (latex_rows(sweep), csv_rows(sweep)), strict=True))


def doubts(sweep: SweepFiles) -> list[str]:
    """Why the numbers should not be quoted, in sentences."""
    content = sweep.comparison
    assert content is not None
    certificate = content["certificate"]
    found = [] if certificate["certified"] else [f"NOT certified, do not quote: {'; '.join(certificate['reasons'])}."]
    stale = ["STALE: runs.csv has changed since the comparison; compare the sweep again."]
    return found + stale * sweep.comparison_is_stale


def latex_rows(sweep: SweepFiles) -> str:
    """A row a variant for a booktabs table, its header and the doubts as comments above it."""
    content = sweep.comparison
    assert content is not None
    wrong = doubts(sweep)
    mark = r"^{\dagger}" if wrong else ""
    header = ["Variant", "Baseline", "Law", "Cells", *(sign for *_, sign in (*MULTIPLIERS, *FACTORS, DECADE, *TESTS))]
    rows = []
    for name, entry in content["variants"].items():
        ends = [entry["multiplier"][key] for key, *_ in MULTIPLIERS]
        ends += [entry[key] for key, *_ in (*FACTORS, DECADE)]
        row = [tex(name), tex(content["baseline"]), tex(content["law"]), str(content["source"]["rows_used"])]
        row += [quoted(_digits(each), mark) for each in ends]
        row += ["--" if entry[key]["p"] is None else f"${{{entry[key]['p']:.2g}}}{mark}$" for key, *_ in TESTS]
        rows.append([*row, ("yes" if content["certificate"]["certified"] else r"\textbf{not certified}")])
    return render(
        "row.tex.j2",
        name=sweep.content["sweep"],
        predicts=f"L_v(N, D) = L(f_v N, g_v D), {content['predicts']}",
        method=content["choices"]["interval_method"],
        doubts=wrong,
        columns="l" * (len(header) + 1),
        header=[*header, "Certified"],
        rows=rows,
    )


def _digits(entry: dict[str, Any] | None) -> list[str]:
    if entry is None or entry["estimate"] is None:
        return ["none"]
    ends = [end for end in (entry["low"], entry["high"]) if end is not None]
    return digits(entry["estimate"], ends if len(ends) == 2 else None)


def csv_rows(sweep: SweepFiles) -> str:
    """A header and one row a variant with every number in full precision; what is not there is empty."""
    content = sweep.comparison
    assert content is not None
    written = io.StringIO()
    writer: Any = None
    for name, entry in content["variants"].items():
        row: dict[str, Any] = {"sweep": sweep.content["sweep"], "column": content["column"], "variant": name}
        row |= {"baseline": content["baseline"], "law": content["law"], "predicts": content["predicts"]}
        row |= {"shared": " ".join(content["shared"]), "certified": content["certificate"]["certified"]}
        row |= {"reasons": "; ".join(content["certificate"]["reasons"]), "stale": sweep.comparison_is_stale}
        parts = entry["multiplier"] | {key: entry[key] for key in ("params", "tokens", "per_decade")}
        for key, ends in parts.items():
            named = {"estimate": key, "low": f"{key}_low", "high": f"{key}_high"}
            row |= {column: (ends or {}).get(end) for end, column in named.items()}
        row |= {f"{key}_p": entry[key]["p"] for key in ("exponents_shared", "neutral")}
        row |= {f"at_{key}": value for key, value in entry["at"].items()}
        row |= {"settings": _settings(content, name) if content["settings"] else None}
        row |= {key: content["source"][key] for key in ("rows", "rows_used", "filter", "sha256")}
        row |= {key: content["choices"][key] for key in ("loss", "delta", "bootstrap", "seed", "interval_method")}
        row |= {"harness": content["versions"]["harness"]}
        if writer is None:
            writer = csv.DictWriter(written, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
    return written.getvalue()
