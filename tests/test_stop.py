"""What one process makes of a signal."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from harness.stop import SIGNALS, Stop, Stopped


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_raises_at_once_or_where_it_is_deferred_at_the_check(tmp_path, number):
    stop = Stop()
    with pytest.raises(Stopped, match=f"^stopped by {number.name}$"), stop.listening():
        signal.raise_signal(number)
    # What cleans up, and what it starts for that, hears no further Ctrl-C.
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []
    with pytest.raises(Stopped) as caught, stop.listening(), stop.deferred(tmp_path):
        signal.raise_signal(number)
        done.append("went on")
        stop.check()
        done.append("not here")
    assert (caught.value.number, done) == (number, ["went on"])
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    with stop.listening():
        stop.check()


def test_a_process_that_starts_beside_a_ctrl_c_hears_it_when_it_listens(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from harness.stop import Stopped, stop\n"
        "print('begun', flush=True); sys.stdin.readline()\n"
        "try: stop.listen_as_worker(Path('.'), None); stop.check()\n"
        "except Stopped as stopped: print(stopped)"
    )
    with Stop().starting_workers():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        worker = subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)
    assert worker.stdout is not None and worker.stdout.readline() == "begun\n"
    worker.send_signal(signal.SIGINT)
    assert worker.communicate("\n", timeout=60)[0] == "stopped by SIGINT\n"


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    stop, done = Stop(), []
    with pytest.raises(Stopped), stop.listening(), stop.deferred(tmp_path):
        signal.raise_signal(signal.SIGINT)
        done.append("went on")
        signal.raise_signal(signal.SIGINT)
        done.append("not here")
    assert done == ["went on"]


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    stop = Stop()
    with stop.listening():
        signal.raise_signal(signal.SIGHUP)
        stop.check()


def test_a_scheduler_s_handler_is_called_once_the_job_is_saved(tmp_path):
    done = []
    signal.signal(signal.SIGUSR2, lambda number, frame: done.append("handed on"))
    stop = Stop()
    stop.listen_as_worker(tmp_path, None)
    signal.raise_signal(signal.SIGUSR2)
    signal.raise_signal(signal.SIGUSR2)
    with pytest.raises(Stopped) as caught:
        stop.check()
    done.append("saved")
    stop.hand_on(caught.value)
    assert done == ["saved", "handed on"]


def test_a_job_that_is_started_again_is_not_ended_by_the_signals_that_follow(tmp_path, monkeypatch):
    heard = []

    def start_again(number, frame):
        heard.append("started again")
        signal.raise_signal(signal.SIGUSR2)
        sys.exit(-1)

    signal.signal(signal.SIGUSR2, start_again)
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append("bypassed"))
    unlink, stop = Path.unlink, Stop()

    def unlink_beside_sigterm(path, **settings):
        unlink(path, **settings)
        if heard:  # while the process leaves what it deferred signals in
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Path, "unlink", unlink_beside_sigterm)
    with pytest.raises(SystemExit) as left, suppress(Stopped), stop.listening(), stop.deferred(tmp_path):
        signal.raise_signal(signal.SIGUSR2)
        try:
            stop.check()
        except Stopped as stopped:
            stop.hand_on(stopped)
    assert (left.value.code, heard) == (-1, ["started again", "bypassed"])


def test_a_sweep_that_is_only_planned_leaves_with_one_line():
    code = (
        "import os, signal; from harness.commands import run_script; from harness.stop import stop\n"
        "def main(arguments):\n"
        "    with stop.listening(): os.kill(os.getpid(), signal.SIGTERM)\n"
        "run_script(main, 'status')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (143, "stopped by SIGTERM; the same command goes on from here\n")


WORKER = """
import os, sys, time
from pathlib import Path
from harness.stop import stop
if sys.argv[1] == "launcher":
    import subprocess
    worker = subprocess.Popen([sys.executable, "-c", sys.argv[2], "worker", sys.argv[2]])
    print(worker.pid, flush=True)
    time.sleep(60)
stop.listen_as_worker(Path("."), None)
print("listening", flush=True)
with stop.working():
    time.sleep(3)
    print("saved", flush=True)
os.read(os.pipe()[0], 1)  # as a worker waits for a pool that is gone
"""


def test_a_worker_leaves_its_dead_launcher_once_it_has_saved():
    launcher = subprocess.Popen([sys.executable, "-c", WORKER, "launcher", WORKER], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    launcher.stdout.readline()
    assert launcher.stdout.readline() == "listening\n"
    launcher.kill()
    launcher.wait()
    # Both hold the pipe's other end: it ends with the worker.
    assert launcher.communicate(timeout=30)[0] == "saved\n"
