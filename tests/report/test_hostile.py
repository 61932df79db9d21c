"""Whatever a sweep says, its page has the same elements: no text of its files becomes markup, a script or a link."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from markupsafe import escape
from synthetic_sweep import diverge, hand_study, make_rows, write_sweep
from test_page import Elements, render_page

HOSTILE = (
    "\"'><script>alert(1)</script>",
    "</script><script src=https://example.org/x.js></script>",
    "</title></style></code><img src=x onerror=alert(1)>",
    "<!--<script>",
    '" onmouseover="alert(1)" x="',
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)//[x](https://example.org)",
    "<a href='https://example.org/'>&lt;b&gt;</a>\u2028\x00",
)


def sweep_that_says(directory: Path, text: str) -> Path:
    """A sweep with `text` wherever its files hold words of a user, of a library or of another process."""
    rows = make_rows()
    rows[0] = diverge(rows[0], error=f"an error {text}")
    for row in rows:
        row |= {key: f"{row[key]} {text}" for key in ("device", "code_version", "schedule") if key in row}
    study = hand_study(pd.DataFrame(rows), certified=False)
    study["notes"] = [text, f"note {text}"]
    for fit in (study["fit"], *study["by_loss"], *study["by_params"]):
        fit["predicts"] = f"{fit['predicts']} {text}"
        fit["certificate"]["reasons"] = [text]
    for holdout in study["holdouts"]:
        holdout["description"] = f"{holdout['description']} {text}"
    write_sweep(directory, rows, name=text, study=study)
    plan = yaml.safe_load((directory / "sweep.yaml").read_text())
    plan |= {"code_version": text, "packages": {text: text}, "overrides": [f"name={text}", text]}
    (directory / "sweep.yaml").write_text(yaml.safe_dump(plan))
    run = directory / "runs" / rows[0]["cell"]
    job = {"name": text, "data": {"path": text, text: text}, "tracking": {"tags": [text]}}
    (run / "config.yaml").write_text(yaml.safe_dump({"job": job}))
    return directory


@pytest.fixture(scope="module")
def harmless(tmp_path_factory) -> Elements:
    return Elements(render_page(sweep_that_says(tmp_path_factory.mktemp("page") / "sweep", "words")))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_never_becomes_markup(tmp_path, harmless, text):
    page = render_page(sweep_that_says(tmp_path / "sweep", text))
    elements = Elements(page)
    assert elements.tags == harmless.tags
    assert page.count(escape(text)) >= 20
    charts = [json.loads(script) for script in elements.scripts if script.startswith("{")]
    assert len(charts) == len([script for script in harmless.scripts if script.startswith("{")]) > 5
    # A chart that is drawn asks for what its data, images and links name.
    assert not [key for chart in charts for key in keys_of(chart) if key in ("url", "href")]


def keys_of(value: object) -> list[str]:
    if isinstance(value, dict):
        return [*map(str, value), *(key for each in value.values() for key in keys_of(each))]
    return [key for each in value for key in keys_of(each)] if isinstance(value, list) else []
