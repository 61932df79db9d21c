import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from harness.commands import run_script

def main(arguments):
    for number in range(20_000):
        print(number)
    with open("done", "w") as file:
        file.write("whole")
    if "full" in arguments:
        open("/dev/full", "w").write("x" * 100_000)
    return 3 if "three" in arguments else 0

run_script(main, "train")
"""


def run(folder, stdout, *arguments):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.Popen(command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE, text=True)
    if stdout == subprocess.PIPE:
        process.stdout.close()
    said = process.stderr.read()
    return process.wait(), said


@pytest.mark.parametrize(("kind", "why"), [("full", "No space left on device"), ("pipe", "Broken pipe")])
def test_what_runs_goes_on_where_standard_output_takes_no_more(tmp_path, kind, why):
    with open("/dev/full", "w") as full:
        status, said = run(tmp_path, full if kind == "full" else subprocess.PIPE)
        assert said == f"error: standard output took no more ({why}): the rest of what was said is lost\n"
        assert status == 1 and (tmp_path / "done").read_text() == "whole"
        assert run(tmp_path, full if kind == "full" else subprocess.PIPE, "three")[0] == 3


def test_a_disk_that_is_full_where_nobody_looked_is_one_sentence(tmp_path):
    with open(os.devnull, "w") as null:
        status, said = run(tmp_path, null, "full")
    assert (status, said.count("\n")) == (2, 1)
    assert said.startswith("error: no space left on a disk that this writes to")
    assert run(tmp_path, subprocess.DEVNULL) == (0, "")


def test_a_line_of_the_help_or_of_a_table_through_head(tmp_path):
    command = f"{sys.executable} -c '{PROGRAM}' --help | head -1"
    answer = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)  # noqa: S602
    assert "Traceback" not in answer.stderr and answer.stderr.count("\n") <= 1
