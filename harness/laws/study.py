"""The whole analysis of a run table, which becomes fit.json."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.files import write_atomically
from harness.laws.checks.agreement import disagreement
from harness.laws.checks.collapse import by_curves
from harness.laws.checks.epochs import by_epochs
from harness.laws.checks.floor import by_floor
from harness.laws.checks.misfit import by_noise, lack_of_fit, sentence
from harness.laws.checks.moves import drops, move
from harness.laws.checks.quality import quality
from harness.laws.checks.targets import by_target
from harness.laws.checks.validation import by_text
from harness.laws.fit import Fit, fit_rows
from harness.laws.methods.approaches import approaches
from harness.laws.methods.counts import accounting, by_params
from harness.laws.methods.frontier import LAWS as FRONTIER_LAWS
from harness.laws.methods.frontier import frontier
from harness.laws.methods.kaplan import kaplan_fits
from harness.laws.noise.intervals import DRAW_TOLERANCE
from harness.laws.noise.noise import Labels
from harness.laws.noise.seeds import seed_noise
from harness.laws.prediction.combination import combine_rows
from harness.laws.prediction.holdout import hold_out, splits
from harness.laws.prediction.ranking import ranking
from harness.laws.provenance import check_out, plain, source_of, versions
from harness.laws.settings import FitConfig
from harness.laws.solving.losses import LOSSES
from harness.laws.table.entry import prepared, unread
from harness.laws.table.levels import budget_labels, level_values, shape_labels
from harness.laws.table.pool import read_sources, sources
from harness.laws.table.repeats import repeated, settings
from harness.laws.table.repeats import sentence as repeats_sentence
from harness.laws.table.rows import SAME_LEVEL, Cells, Rows
from harness.laws.table.table import Table
from harness.laws.table.units import doubts
from harness.laws.tuning.doubt import by_tuning, found_beside
from harness.laws.tuning.joint import read_joint

SCHEMA = 1
CURVE_POINTS, MOST_CURVES = 41, 12
# Above this, a study leaves out what fits a table many times or grows with its square.
MANY_ROWS = 5_000
# How far a drawn curve reaches beyond the sampled range.
BEYOND = 1.3


def output_path(config: FitConfig) -> Path:
    """Where the study is written."""
    if config.out:
        return Path(config.out)
    paths = sources(config.runs)
    if len(paths) > 1:
        raise UserError(f"runs={config.runs} names {len(paths)} tables: name the file of their fit with out=PATH")
    runs = Path(paths[0])
    return runs / "fit.json" if runs.is_dir() else runs.with_suffix(".fit.json")


def write_study(config: FitConfig) -> dict[str, Any]:
    """Runs the study and writes it; raises UserError before anything is written."""
    path = output_path(config)
    table = read_sources(config.runs, config.columns.target, config.columns.cluster)
    check_out(path)
    if config.tuning is not None:
        read_joint(Path(config.tuning))
    found = study(table, config)
    write_atomically(path, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def study(table: Table, config: FitConfig) -> dict[str, Any]:
    """The content of fit.json for a table; raises UserError where the headline fit is not possible."""
    config.check()
    law = config.law_of(table)
    wishes = (config.filter, config.best_of, config.units, config.target_unit, config.bytes_per_token)
    ready = prepared(table, config.columns, law, *wishes)
    table, columns, rows = ready.table, ready.columns, ready.rows
    many = len(rows) > MANY_ROWS
    config = replace(config, columns=columns, bootstrap=0 if many else config.bootstrap)
    best = fit_rows(rows, columns, law, config.loss, config.delta, config.bootstrap, config.seed, table.source)
    cells = cells_of(table, rows)
    varied = settings(table, rows, columns)
    repeat_R = repeated(table, cells.shape_R, varied)
    notes = ready.notes + repeats_sentence(table, varied) + list(table.notes) + _notes(table, best)
    notes += [_many(len(rows))] if many else []
    kaplan, kaplan_notes = kaplan_fits(cells, best, config.bootstrap, config.seed)
    chosen = (config.bootstrap, config.seed, config.approaches.within)
    others, disagreements = (None, []) if many else approaches(cells, best, *chosen)
    ranked, advice = ([], None) if many else ranking(cells, best)
    checked, wrong = quality(cells, best, varied)
    by_loss = [_with(best, config, loss=loss) for loss in LOSSES]
    apart = disagreement(cells, by_loss, checked)
    tuned, tuning_notes = _by_tuning(best, table, config, many)
    doubtful = tuning_notes + doubts(table, rows, columns, config.units, config.target_unit) + wrong
    text, of_texts, text_notes = _by_text(best, table, config)
    counted = by_params(table, best, config.bootstrap, config.seed)
    combination, preferred = _combination(rows, config)
    holdouts, moves, skipped = ([], [], []) if many else _checks(cells, best, config)
    seeds, misfit = _by_seeds(best, cells, repeat_R)
    content = {
        "schema": SCHEMA,
        "source": source_of(table, best),
        "choices": _choices(config, best),
        "versions": versions(),
        "fit": best.to_dict(),
        "by_loss": [each.to_dict() for each in by_loss],
        "disagreement": apart,
        "by_params": [each.to_dict() for each in counted],
        "by_text": [each.to_dict() for each in of_texts],
        "accounting": accounting(table, counted),
        "kaplan": kaplan,
        "approaches": others,
        "frontier": frontier(best, config.frontier),
        "seed_noise": seeds,
        "validation_text": text,
        "lack_of_fit": misfit,
        "by_noise": by_noise(best, seeds, config.bootstrap, config.seed) if config.bootstrap else [],
        "noise": _noise(best),
        "holdouts": holdouts,
        "ranking": ranked,
        "recommended": advice and asdict(advice),
        "combination": combination,
        "moves": moves,
        "residuals": _residuals(cells, best),
        "quality": checked,
        "bands": _bands(cells, best),
        "notes": notes + text_notes + sentence(misfit) + doubtful + preferred + disagreements + kaplan_notes + skipped,
    }
    curves = None if many else by_curves(best, cells, repeat_R, sources(config.runs))
    repeats = None if many else by_epochs(best, cells, config.bootstrap, config.seed)
    beside = {"floor": by_floor(best, table), "epochs": repeats, "collapse": curves}
    return plain(content | tuned | {name: found for name, found in beside.items() if found})


def cells_of(table: Table, rows: Rows) -> Cells:
    """The cells; of one shape, or one budget, where the rows do not know of any."""
    one_R = np.zeros(len(rows), np.intp)
    shape_R = shape_labels(table.frame, rows.params) if rows.knows("params") else one_R
    return Cells(table, rows, shape_R, budget_labels(rows.tokens) if rows.knows("tokens") else one_R)


def _by_text(fit: Fit, table: Table, config: FitConfig) -> tuple[dict[str, Any] | None, list[Fit], list[str]]:
    """How far the exponents hang on the validation text, the fits to further ones, and notes on what is left out."""
    fits, notes = by_target(table, fit, config.bootstrap, config.seed)
    try:
        return by_text(fit, table), fits, notes
    except UserError as error:
        said = f"How far the exponents hang on the validation text is left out: {error}."
        return None, fits, [said, *notes]


def _by_seeds(fit: Fit, cells: Cells, repeat_R: Labels) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The noise that repeats show, and the misfit beside it; without params or tokens nobody knows what a cell is."""
    if not fit.rows.knows("params", "tokens"):
        return None, None
    seeds = seed_noise(fit.rows.loss, repeat_R, cells.budget_R, fit.rows.cluster)
    return seeds, lack_of_fit(fit, repeat_R, cells.budget_R)


def _by_tuning(fit: Fit, table: Table, config: FitConfig, many: bool) -> tuple[dict[str, Any], list[str]]:
    """The exponents at the cells' own best settings, under `tuning`, where a tune.json was named or lies beside the
    sweep, and why they are left out."""
    beside = found_beside(sources(config.runs))
    if many and (beside or config.tuning):
        return {}, [f"How far the exponents hang on the settings is left out of more than {MANY_ROWS} rows."]
    if config.tuning is not None:
        return {"tuning": by_tuning(fit, table, Path(config.tuning), config.bootstrap, config.seed)}, []
    if beside is None:
        return {}, []
    try:
        return {"tuning": by_tuning(fit, table, beside, config.bootstrap, config.seed)}, []
    except UserError as error:
        return {}, [f"How far the exponents hang on the settings is left out: {error}."]


def _noise(fit: Fit) -> dict[str, float | None]:
    """The standard deviations of trunks and of cells that the residuals show; the first may be hidden."""
    trunk, cell = np.sqrt(fit.noise.estimates).tolist()
    return {"trunk_sd": None if fit.noise.trunks_hidden else trunk, "cell_sd": cell}


def _with(fit: Fit, config: FitConfig, loss: str) -> Fit:
    """The headline fit under another loss."""
    if loss == fit.loss:
        return fit
    return fit_rows(fit.rows, fit.columns, fit.law, loss, fit.delta, config.bootstrap, config.seed)


def _combination(rows: Rows, config: FitConfig) -> tuple[dict[str, Any] | None, list[str]]:
    """The laws weighed by their hold-outs, and which of them that recommends, where combine=holdout asks for it."""
    if config.combine is None:
        return None, []
    found = combine_rows(rows, config.columns, config.loss, config.delta)
    return found.to_dict(), [f"combine=holdout: {found.reason}"]


def _checks(cells: Cells, fit: Fit, config: FitConfig) -> tuple[list[Any], list[Any], list[str]]:
    """Hold-outs and moves, and sentences for those that the rows do not allow."""
    holdouts, moves, skipped = [], [], []
    for name, description, test_R in splits(cells):
        try:
            holdouts.append(hold_out(cells, fit, name, description, test_R))
        except UserError as error:
            skipped.append(f"{error}.")
    for dropped, keep_R in drops(cells):
        try:
            moves.append(move(fit, dropped, keep_R, config.bootstrap, config.seed))
        except UserError as error:
            skipped.append(f"{error}.")
    return holdouts, moves, skipped


def _notes(table: Table, fit: Fit) -> list[str]:
    """What a reader must know to read the numbers rightly."""
    notes = []
    if not fit.certificate.certified:
        notes.append(f"The fit is not certified: {'; '.join(fit.certificate.reasons)}.")
    if fit.draws is not None and fit.draws.converged < 0.99:
        notes.append(f"{1 - fit.draws.converged:.1%} of the simulated fits did not converge.")
    ratio_R = fit.rows.flops / fit.rows.params / fit.rows.tokens
    kappa = fit.rows.flops_per_product
    notes += unread(table, fit.columns, fit.rows)
    if fit.rows.flops_exact and fit.law in FRONTIER_LAWS:
        notes.append(
            f"The frontier takes C = {kappa:.3g} N D, the geometric mean of the cells' own flops "
            f"({ratio_R.min():.3g} to {ratio_R.max():.3g} times N D)."
        )
    for use, words in fit.rows.derived.items():
        symbol = {"params": "N", "tokens": "D", "flops": "C"}[use]
        notes.append(f"The table has no column {getattr(fit.columns, use)}, so {symbol} = {words}.")
    if fit.noise.trunks_hidden:
        notes.append(
            f"Under this law {int(fit.noise.cluster_R.max()) + 1} trunks do not show what their cells share, so the "
            "intervals allow any share: add shapes or seeds to narrow them."
        )
    if fit.rows.cluster is None:
        notes.append("The table names no trunk or cluster column, so its rows count as independent.")
    epochs = table.spare("epochs")
    if epochs is not None and (epochs > 1 + 1e-9).any() and "unique_tokens" not in fit.form.uses:
        notes.append("Some cells repeat their data (epochs above 1), which this law counts as fresh tokens.")
    if table.excluded:
        many = "1 row is" if len(table.excluded) == 1 else f"{len(table.excluded)} rows are"
        notes.append(f"{many} left out, listed under source.excluded.")
    return notes


def _choices(config: FitConfig, fit: Fit) -> dict[str, Any]:
    return {
        "law": fit.law,
        "loss": fit.loss,
        "delta": fit.delta,
        "params": fit.columns.params if fit.rows.knows("params") else None,
        "tokens": fit.columns.tokens if fit.rows.knows("tokens") else None,
        "target": fit.columns.target,
        "bootstrap": config.bootstrap,
        "seed": config.seed,
        "combine": config.combine,
        "tolerance": fit.certificate.tolerance,
        "draw_tolerance": DRAW_TOLERANCE if fit.draws else None,
        "interval_method": fit.interval_method,
    }


def _many(rows: int) -> str:
    return (
        f"The table has {rows} rows: intervals come from the curvature, every {_stride(rows)}th residual is listed, "
        f"and hold-outs, moves, ranking and approaches are left out; filter= to {MANY_ROWS} rows or fewer gives them."
    )


def _stride(rows: int) -> int:
    return -(-rows // MANY_ROWS)


def _residuals(cells: Cells, fit: Fit) -> list[dict[str, Any]]:
    rows = fit.rows
    predicted_R = fit.predict(**rows.at(fit.form))
    return [
        {
            "cell": cells.table.name(index),
            "params": rows.params[index],
            "tokens": rows.tokens[index],
            "loss": rows.loss[index],
            "predicted": predicted_R[index],
            "residual": math.log(rows.loss[index] / predicted_R[index]),
        }
        | cells.table.origin(index)
        for index in range(0, len(rows), _stride(len(rows)))
    ]


def _bands(cells: Cells, fit: Fit) -> dict[str, Any]:
    """Curves over tokens, one a shape, and over params, one a budget, with the interval of a new run."""
    rows = fit.rows
    fresh_R = rows.others.get("unique_tokens", rows.tokens)
    once = np.allclose(fresh_R, np.minimum(rows.tokens, fresh_R.max()), rtol=SAME_LEVEL)
    # a curve needs a path through what else a law counts, and one corpus gives that
    if rows.others.keys() - {"unique_tokens"} or not once or not rows.knows("params", "tokens"):
        return {"kind": "none for this law", "by_tokens": [], "by_params": []}
    shapes = _some(level_values(rows.params, cells.shape_R))
    budgets = _some(level_values(rows.tokens, cells.budget_R))
    tokens_X = np.geomspace(rows.tokens.min() / BEYOND, rows.tokens.max() * BEYOND, CURVE_POINTS)
    params_X = np.geomspace(rows.params.min() / BEYOND, rows.params.max() * BEYOND, CURVE_POINTS)

    log_kappa_S = np.log(level_values(rows.flops / rows.params / rows.tokens, cells.shape_R))
    log_params_S = np.log(level_values(rows.params, cells.shape_R))

    def curve(params: Any, tokens: Any) -> dict[str, Any]:
        at = {"params": params, "tokens": tokens}
        if "flops" in fit.form.uses:  # C is that of the shapes nearby, not a multiple of N D that all share
            at["flops"] = np.exp(np.interp(np.log(params), log_params_S, log_kappa_S)) * params * tokens
        if "unique_tokens" in fit.form.uses:
            at["unique_tokens"] = np.minimum(tokens, fresh_R.max())
        low_X, high_X = fit.predict_interval(**at)
        return {
            "params": params,
            "tokens": tokens,
            "predicted": fit.predict(**at),
            "low": low_X,
            "high": high_X,
        }

    return {
        "kind": "95 % interval for the loss of one new run",
        "by_tokens": [curve(shape, tokens_X) for shape in shapes],
        "by_params": [curve(params_X, budget) for budget in budgets],
    }


def _some(values: Any) -> Any:
    """At most MOST_CURVES of the values, spread evenly over their ranks."""
    if len(values) <= MOST_CURVES:
        return values
    return values[np.linspace(0, len(values) - 1, MOST_CURVES).round().astype(int)]
