from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from synthetic_sweep import write_sweep

SCRIPT = Path(__file__).parents[2] / "scripts" / "report.py"


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return ended.value.code


def test_it_prints_where_the_report_is_and_nothing_else(monkeypatch, capsys, tmp_path, rows):
    # A folder name with what Hydra's grammar would take apart.
    directory = write_sweep(tmp_path / "a,b=c's d", rows[:2])
    assert run(monkeypatch, f"runs={directory}") == 0
    assert capsys.readouterr() == (f"report: {directory}/report.html\n", "")
    assert (directory / "report.html").stat().st_size > 300_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "runs has no value: give a sweep directory"),
        (["runs=nowhere/to/be/found"], "runs=nowhere/to/be/found is not a folder"),
        (["run=outputs/cpu"], "there is no key run; did you mean runs?"),
        (["runs=.", "tracking=none"], "tracking=none: there is no key tracking; --help lists the keys"),
        (["runs=."], "holds no sweep.yaml"),
    ],
)
def test_mistakes_get_one_sentence_and_status_2(monkeypatch, capsys, tmp_path, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1 and sentence in error
    assert not list(tmp_path.iterdir())
