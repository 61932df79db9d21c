"""A saved view of a sweep in its W&B project, and a W&B report with its law, both by wandb-workspaces.

Where they are is kept in wandb/view.json of the sweep's folder, so that they are made anew in place.
"""

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.files import write_atomically
from harness.records import SweepFolder, axes_of, read_sweep
from harness.tracking.config import base_url
from harness.tracking.fits import exponents, run_id
from harness.tracking.log import VIEW, say
from harness.tracking.mirrors import MirrorTask

MOST_RUNS = 1000
COORDINATES = ("width", "depth", "tokens", "seed", "learning_rate")
MISSING = "wandb-workspaces is not installed: pip install 'scaling-harness[view]'"


def log(task: MirrorTask) -> None:
    """Makes the view and, where the sweep is fitted, the report; says why where it cannot."""
    folder = Path(task.sweep_dir)
    if task.mode != "online":
        say(folder, VIEW, "offline", task.why)
        return
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        say(folder, VIEW, "broken", MISSING)
        return
    import wandb

    place = [base_url(), task.entity or str(wandb.Api().default_entity), str(task.project)]
    urls = [_saved(_save_view, folder, place)]
    if (folder / "fit.json").exists():
        urls.append(_saved(_save_report, folder, place))
    say(folder, VIEW, "uploaded", " and its report at ".join(urls))


def _saved(save: Callable[[Path, list[str], dict[str, str]], dict[str, str]], folder: Path, place: list[str]) -> str:
    """Where a view or report is that was saved in place of the one that is known, or anew where that one is gone."""
    known = _known(folder, place)
    try:
        found = save(folder, place, known)
    except Exception:
        if not known:
            raise
        found = save(folder, place, {})
    write_atomically(folder / "wandb" / "view.json", json.dumps({"place": place} | known | found) + "\n")
    return next(url for name, url in found.items() if name.endswith("_url"))


def _known(folder: Path, place: list[str]) -> dict[str, str]:
    """The names that W&B gave to the view and the report of this sweep, where they are in that place."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads((folder / "wandb" / "view.json").read_text())
        if known.pop("place") == place:
            return dict(known)
    return {}


def _runs_of(group: str, kind: str) -> str:
    return f"Group = '{group}' and JobType = '{kind}'"


def _save_view(folder: Path, place: list[str], known: dict[str, str]) -> dict[str, str]:
    """Saves the view of a sweep, in place of the one that is known."""
    from wandb_workspaces import workspaces as ws

    _, entity, project = place
    names = COORDINATES + ("variant",) * bool(axes_of(read_sweep(SweepFolder(folder))))
    section = ws.Section(name="Losses", panels=_panels(), is_open=True, pinned=True)
    view = ws.Workspace(entity=entity, project=project, name=f"{folder.name} losses", sections=[section])
    view.runset_settings = ws.RunsetSettings(
        filters=_runs_of(folder.name, "cell"),
        pinned_columns=["run:displayName", *(f"config:{name}.value" for name in names), "summary:loss"],
    )
    view.settings = ws.WorkspaceSettings(x_axis="tokens", max_runs=MOST_RUNS)
    view._internal_name, view._internal_id = known.get("view_name", ""), known.get("view_id", "")
    view.save()
    return {"view_name": view._internal_name, "view_id": view._internal_id, "view_url": str(view.url)}


def _panels() -> list[Any]:
    """Loss against tokens, against FLOPs, against params by budget, and the settings of each cell beside its loss."""
    from wandb_workspaces.reports import v2 as wr

    curves = [
        wr.LinePlot(
            title=f"training loss against {title}", x=axis, y=["train_loss"], log_x=True, log_y=True,
            title_x=title, title_y="nats a token", smoothing_factor=0, max_runs_to_show=MOST_RUNS,
        )
        for axis, title in (("tokens", "tokens"), ("flops", "FLOPs"))
    ]  # fmt: skip
    final = wr.ScatterPlot(
        title="validation loss against params, coloured by tokens", x=wr.Config("params_with_head"),
        y=wr.SummaryMetric("loss"), z=wr.Config("tokens"), log_x=True, log_y=True, log_z=True,
    )  # fmt: skip
    columns = [
        wr.ParallelCoordinatesPlotColumn(metric=wr.Config(name), log=name != "seed" or None) for name in COORDINATES
    ]
    loss = wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric("loss"), log=True)
    beside = wr.ParallelCoordinatesPlot(title="settings and validation loss", columns=[*columns, loss])
    return [*curves, final, beside]


def _save_report(folder: Path, place: list[str], known: dict[str, str]) -> dict[str, str]:
    """Saves the report of a sweep's fit, in place of the one that is known: law, losses, figures, exponents."""
    from wandb_workspaces.reports import v2 as wr

    _, entity, project = place
    text = (folder / "fit.json").read_text()
    fitted = json.loads(text)
    figures = sorted(f"figures/{path.stem}" for path in (folder / "figures").glob("*.png"))
    media: list[Any] = [wr.MediaBrowser(media_keys=[name], layout=wr.Layout(w=12, h=10)) for name in figures]
    which = {"cells": _runs_of(folder.name, "cell"), "fit": f"ID = '{run_id(folder.name, text)}'"}
    cells, fits = (wr.Runset(entity=entity, project=project, name=name, filters=runs) for name, runs in which.items())
    report = wr.Report(
        entity=entity, project=project, title=f"{folder.name} scaling law", width="fluid",
        description=f"From the run table of the sweep {folder.name}",
        blocks=[
            wr.MarkdownBlock(text=law_table(fitted)),
            wr.PanelGrid(runsets=[cells], panels=_panels()),
            *([wr.PanelGrid(runsets=[fits], panels=media)] if media else []),
            *([wr.MarkdownBlock(text=exponents_table(fitted))] if exponents(fitted) else []),
        ],
    )  # fmt: skip
    report.id = known.get("report_id", "")
    report.save()
    return {"report_id": report.id, "report_url": str(report.url)}


def law_table(fitted: dict[str, Any]) -> str:
    """The headline of a fit.json in markdown: its law, whether it is certified, each estimate with its interval."""
    fit = fitted["fit"]
    certified = "certified" if fit["certificate"]["certified"] else "NOT certified: do not quote these numbers"
    intervals = fit.get("intervals") or {}
    rows = [
        [name, _number(value), " to ".join(map(_number, intervals[name])) if intervals.get(name) else ""]
        for name, value in fit["estimates"].items()
    ]
    return f"**{fit['law']}**, {fit['rows']} rows, {certified}\n\n" + _markdown(["", "estimate", "95 % interval"], rows)


def exponents_table(fitted: dict[str, Any]) -> str:
    """The fits of a fit.json under every count of params and every loss, in markdown."""
    table = exponents(fitted)
    return _markdown([*table], [[_number(value) for value in row] for row in zip(*table.values(), strict=True)])


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    return "" if value is None else str(value)
