"""What a paper quotes of a fit: a table row in LaTeX and in CSV, and a paragraph that states every choice."""

import csv
import io
import re
import textwrap
from typing import Any

import jinja2

from harness.laws.checks import validation
from harness.laws.display import digits
from harness.laws.tuning import doubt
from harness.report.fields import number
from harness.report.inputs import SweepFiles
from harness.report.prose import excluded, trained, training

FILES = ("row.tex", "row.csv", "methods.txt")
COUNTED = {
    "params_with_head": " (non-embedding parameters and vocabulary x width for the head)",
    "params_non_embedding": " (all parameters but embedding, position table and head)",
    "params_total": " (all parameters)",
}
LOSSES = {
    "huber": "Huber loss (delta {:g}) of the log residual",
    "lad": "absolute log residual",
    "log_mse": "squared log residual",
    "mse": "squared residual",
}
FIRST = ("alpha", "beta", "gamma", "a", "E")
# Exclusions for one reason are named while they are so few.
MOST_NAMED = 5
TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {sign: "\\" + sign for sign in "&%$#_{}"}
GREEK = ("alpha", "beta", "gamma")


def paper(sweep: SweepFiles) -> dict[str, str]:
    """The content of each file; none without a fit."""
    if sweep.fit is None:
        return {}
    return dict(zip(FILES, (latex_row(sweep), csv_row(sweep), paragraph(sweep)), strict=True))


def doubts(sweep: SweepFiles) -> list[str]:
    """Why the numbers should not be quoted, in sentences."""
    assert sweep.fit is not None
    seal = sweep.fit["fit"]["certificate"]
    found = []
    if not seal["certified"]:
        found.append(f"NOT certified, do not quote: {'; '.join(seal['reasons']) or 'no reason is recorded'}.")
    if sweep.fit_is_stale:
        found.append("STALE: runs.csv has changed since the fit; fit the sweep again.")
    return found


def _estimates(fit: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Name, value and interval ends, as text; the exponents first. The interval is absent where there is none."""
    names = [name for name in FIRST if name in fit["estimates"]]
    names += [name for name in fit["estimates"] if name not in names]
    return [(name, _digits(fit["estimates"][name], (fit["intervals"] or {}).get(name))) for name in names]


def _digits(value: float | None, interval: list[float | None] | None) -> list[str]:
    if value is None:
        return ["none"]
    ends = [end for end in interval or [] if end is not None]
    return digits(value, ends if len(ends) == 2 else None)


def latex_row(sweep: SweepFiles) -> str:
    """One row for a booktabs table, its header and the doubts as comments above it."""
    assert sweep.fit is not None
    fit, choices = sweep.fit["fit"], sweep.fit["choices"]
    wrong = doubts(sweep)
    mark = r"^{\dagger}" if wrong else ""
    columns = [("Sweep", tex(sweep.content["sweep"])), ("Law", tex(fit["law"])), ("$N$", tex(choices["params"]))]
    columns += [("Loss function", tex(_loss(choices))), ("Cells", str(sweep.fit["source"]["rows_used"]))]
    columns += [(_symbol(name), quoted(shown, mark)) for name, shown in _estimates(fit)]
    columns += _tuned_columns(sweep)
    for split in sweep.fit["holdouts"]:
        mean = split["mean_relative_error"]
        shown = "--" if mean is None else f"{100 * mean:.2f}"
        doubt = r"$^{\dagger}$" if wrong or not split["certified"] else ""
        columns.append((rf"Held-out {tex(split['name'].replace('_', ' '))} (\%)", shown + doubt))
    verdict = "yes" if fit["certificate"]["certified"] else r"\textbf{not certified}"
    columns.append(("Certified", verdict + (r"$^{\dagger}$" if wrong else "")))
    return render(
        "row.tex.j2",
        name=sweep.content["sweep"],
        predicts=fit["predicts"],
        method=choices["interval_method"],
        doubts=wrong,
        columns="l" * len(columns),
        header=[name for name, _ in columns],
        rows=[[field for _, field in columns]],
    )


def _tuned_columns(sweep: SweepFiles) -> list[tuple[str, str]]:
    """The quantities at the cells' own best settings, where these were tuned."""
    assert sweep.fit is not None
    tuned = sweep.fit.get("tuning") or {"quantities": {}}
    wrong = doubts(sweep) or not tuned.get("certified")
    return [
        (f"{_symbol(name)} at best settings", quoted(_digits(entry["value"], [entry["low"], entry["high"]]),
                                                      r"^{\dagger}" if wrong else ""))
        for name, entry in tuned["quantities"].items()
    ]  # fmt: skip


def _symbol(name: str) -> str:
    if name in GREEK:
        return f"$\\{name}$"
    return f"${name[0]}_{{{name[1:]}}}$" if len(name) > 1 else f"${name}$"


def quoted(shown: list[str], mark: str) -> str:
    """A number in LaTeX, as text and the ends of its interval where it has one; a dash for `none`."""
    if shown == ["none"]:
        return "--"
    powers = [re.sub(r"e([+-]\d+)$", lambda found: rf" \times 10^{{{int(found[1])}}}", each) for each in shown]
    interval = rf"\ [{powers[1]}, {powers[2]}]" if len(powers) > 1 else ""
    return f"${{{powers[0]}}}{mark}{interval}$"


def tex(text: Any) -> str:
    """Text as LaTeX, in one line."""
    return "".join(TEX.get(sign, sign) for sign in " ".join(str(text).split()))


def csv_row(sweep: SweepFiles) -> str:
    """A header and one row with every headline number in full precision; what is not there is empty."""
    assert sweep.fit is not None
    fit, source, choices = sweep.fit["fit"], sweep.fit["source"], sweep.fit["choices"]
    seal, frontier, noise = fit["certificate"], sweep.fit["frontier"] or {}, sweep.fit["seed_noise"] or {}
    row: dict[str, Any] = {"sweep": sweep.content["sweep"], "law": fit["law"], "predicts": fit["predicts"]}
    row |= {"certified": seal["certified"], "reasons": "; ".join(seal["reasons"]), "stale": sweep.fit_is_stale}
    row |= {key: choices[key] for key in ("params", "tokens", "target", "loss", "delta")}
    row |= {"rows": source["rows"], "rows_used": source["rows_used"], "filter": source.get("filter")}
    for name, value in fit["estimates"].items():
        low, high = (fit["intervals"] or {}).get(name) or (None, None)
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    tuned = sweep.fit.get("tuning")
    for name, entry in tuned["quantities"].items() if tuned else ():
        key, moved = f"{name}_at_best_settings", entry["shift"]
        row |= {key: entry["value"], f"{key}_low": entry["low"], f"{key}_high": entry["high"]}
        row |= {f"{key}_shift": moved["estimate"], f"{key}_shift_low": moved["low"], f"{key}_shift_high": moved["high"]}
    if tuned:
        row |= {"at_best_settings_certified": tuned["certified"], "tuning_certified": tuned["tuning_certified"]}
    row |= {"objective": fit["objective"], "interval_method": choices["interval_method"]}
    row |= {key: choices[key] for key in ("bootstrap", "seed")}
    row |= {key: seal[key] for key in ("gradient_norm", "starts", "starts_agree", "rank", "condition")}
    row |= {"flops_per_product": frontier.get("flops_per_product"), "seed_sd_nats": noise.get("sd_nats")}
    for split in sweep.fit["holdouts"]:
        name = split["name"]
        row |= {f"{name}_error": split["mean_relative_error"], f"{name}_certified": split["certified"]}
        row |= {f"{name}_competitor_error": split["competitor_mean_relative_error"]}
    row |= {"recommended": (sweep.fit.get("recommended") or {}).get("law")}
    row |= {"sha256": source.get("sha256"), "harness": (sweep.fit.get("versions") or {}).get("harness")}
    written = io.StringIO()
    writer = csv.DictWriter(written, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    return written.getvalue()


def paragraph(sweep: SweepFiles) -> str:
    """The methods in plain text."""
    assert sweep.fit is not None
    fit, source, choices = sweep.fit["fit"], sweep.fit["source"], sweep.fit["choices"]
    kappa = (sweep.fit["frontier"] or {}).get("flops_per_product")
    weight = source["columns"].get("weight")
    versions = [f"{name} {version}" for name, version in (sweep.fit.get("versions") or {}).items()]
    packages = [f"{name} {version}" for name, version in (sweep.content.get("packages") or {}).items()]
    text = render(
        "methods.txt.j2",
        name=sweep.content["sweep"],
        doubts=doubts(sweep),
        training=training(sweep),
        data=_data(sweep),
        grid=dict.fromkeys(("Model", "Code version"), "") | dict(trained(sweep)),
        optimizer=(sweep.job.get("optimizer") or {}).get("name"),
        fit=fit,
        stated=sweep.content.get("law") == fit["law"],
        source=source,
        choices=choices,
        digests=_digests(source),
        excluded=_excluded(sweep),
        counted=COUNTED.get(choices["params"], ""),
        kappa=kappa and number(kappa),
        loss=_loss(choices),
        weights=f"rows are weighted by the column {weight}" if weight else "all rows weigh the same",
        seal=fit["certificate"],
        verdict="the fit is certified" if fit["certificate"]["certified"] else doubts(sweep)[0].rstrip("."),
        cluster=source["columns"].get("cluster"),
        noise=_noise(sweep),
        holdouts=_holdouts(sweep),
        advice=(sweep.fit.get("recommended") or {}).get("reason", ""),
        estimates=[
            f"{name} = {shown[0]}" + (f" ({shown[1]} to {shown[2]})" if len(shown) > 1 else " (no interval)")
            for name, shown in _estimates(fit)
        ],
        versions=", ".join(dict.fromkeys(versions + packages)) or "not recorded",
    )
    return textwrap.fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False) + "\n"


def _loss(choices: dict[str, Any]) -> str:
    return LOSSES.get(choices["loss"], choices["loss"]).format(choices["delta"])


def _data(sweep: SweepFiles) -> str:
    data, tokenizer = sweep.job.get("data") or {}, sweep.job.get("tokenizer") or {}
    if not data:
        return "The training data are not recorded."
    parts = [str(data[key]) for key in ("source", "name", "config", "path", "revision") if data.get(key)]
    sizes = sorted({int(size) for size in sweep.cells.get("vocab_size", []) if size == size})
    size = f", vocabulary {', '.join(map(str, sizes))}" if sizes else ""
    repeat = "may repeat" if data.get("repeat") else "never repeat"
    return f"The data are {' '.join(parts)} (tokenizer {tokenizer.get('kind', 'not recorded')}{size}) and {repeat}."


def _digests(source: dict[str, Any]) -> str:
    """What was read: one digest, or each path of a pooled table with its own."""
    parts = source.get("sources") or [source]
    if len(parts) == 1:
        return f"SHA-256 {source.get('sha256') or 'not recorded'}"
    return "pooled from " + ", ".join(f"{part['path']} of SHA-256 {part['sha256'] or 'none'}" for part in parts)


def _excluded(sweep: SweepFiles) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, why in excluded(sweep):
        by_reason.setdefault(why, []).append(name)
    if not by_reason:
        return "No row is left out."
    parts = [
        f"{len(names)} because {why}" + (f" ({', '.join(names)})" if len(names) <= MOST_NAMED else "")
        for why, names in by_reason.items()
    ]
    return f"Left out: {'; '.join(parts)}."


def _noise(sweep: SweepFiles) -> str:
    assert sweep.fit is not None
    said = (validation.sentence(sweep.fit.get("validation_text")), doubt.sentence(sweep.fit.get("tuning")))
    return " ".join([_seeds(sweep), *(f"{text[0].upper()}{text[1:]}." for text in said if text)])


def _seeds(sweep: SweepFiles) -> str:
    assert sweep.fit is not None
    noise = sweep.fit["seed_noise"]
    if not noise:
        return "No cell was trained with two seeds, so run-to-run noise is not measured by repeats."
    return (
        f"Repeated seeds differ by a standard deviation of {noise['sd_nats']:.4f} nats "
        f"({noise['degrees_of_freedom']} degrees of freedom)."
    )


def _holdouts(sweep: SweepFiles) -> list[str]:
    assert sweep.fit is not None
    sentences = []
    for split in sweep.fit["holdouts"]:
        law, plain = (
            "none" if value is None else f"{value:.2%}"
            for value in (split["mean_relative_error"], split["competitor_mean_relative_error"])
        )
        doubt = "" if split["certified"] else ", by a fit that is NOT certified"
        sentences.append(
            f"Held out, {split['description']} ({split['n_test']} cells): mean relative error {law}{doubt}; an "
            f"additive table of shape and budget effects has {plain}."
        )
    return sentences or ["Nothing could be held out."]


def render(template: str, **values: Any) -> str:
    """A template of this folder as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"line": lambda text: " ".join(str(text).split()), "shown": number}
    return environment.get_template(template).render(values)
