"""Asking a sweep to stop: a signal becomes a flag that its step loops read, so that a checkpoint comes first."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

# SIGUSR2 is a scheduler's notice before it kills, SIGHUP the end of a terminal.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
# SLURM's own wait between SIGTERM and SIGKILL is 30 s.
KILL_SECONDS = 120.0
WATCH_SECONDS = 1.0


class Stopped(BaseException):
    """A signal asked this process to leave. No Exception, so that no cell counts as failed by it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class Stop:
    """Whether this process was asked to stop: by a signal, by another process of its sweep, by its launcher's end."""

    def __init__(self) -> None:
        # In a launcher, of the file by which each process of a sweep stops all: a worker that stopped alone would only
        # take the next job, and a signal that reached it while it starts would kill it and break its pool.
        self.name: str | None = None
        self._number: int | None = None
        self._file: str | None = None
        self._launcher: int | None = None  # in a worker, the process that started it
        self._previous: dict[int, Any] = {}
        self._deferred = False
        self._working = False

    def check(self) -> None:
        """Raises Stopped where this process was asked to stop."""
        if self.asked():
            assert self._number is not None
            self._raise(self._number)

    @property
    def number(self) -> int | None:
        """The signal that asked."""
        return self._number

    def ask(self, number: int) -> None:
        """Asks this process, and all of its sweep, as that signal would; nothing where one has."""
        if not self.asked():
            self._note(number)

    def asked(self) -> bool:
        if self._number is None and self._file is not None and os.path.exists(self._file):
            self._number = signal.SIGTERM
            with suppress(OSError, ValueError):  # it goes with the launcher, and is empty before it is written
                self._number = int(Path(self._file).read_text())
        if self._number is None and self.launcher_is_gone():
            self._number = signal.SIGHUP
        return self._number is not None

    def launcher_is_gone(self) -> bool:
        return self._launcher is not None and self._launcher != os.getppid()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it the signals raise Stopped, at once or, within deferred, where check is called."""
        try:
            self._install()
            yield
        finally:
            for number, previous in self._previous.items():
                if signal.getsignal(number) == self._take:
                    signal.signal(number, previous)
            self._previous, self._number = {}, None

    @contextmanager
    def deferred(self, folder: Path) -> Iterator[None]:
        """Within it a signal waits for check, here and in every worker; a second Ctrl-C does not."""
        self.name = f".stop-{os.uname().nodename}-{os.getpid()}"
        file = folder.resolve() / self.name
        file.unlink(missing_ok=True)
        self._file, self._deferred = str(file), True
        try:
            yield
            self.check()
        finally:
            self._file, self._deferred, self.name = None, False, None
            file.unlink(missing_ok=True)

    def listen_as_worker(self, folder: Path, name: str | None) -> None:
        """For the rest of this process: a signal between two jobs must not kill a worker, which would break its pool.

        `name` is the launcher's. Does nothing in the process of the launcher itself.
        """
        if self._launcher is None and (self._previous or self._deferred):
            return
        self._file = str(folder.resolve() / name) if name else None
        self._number = None  # of a sweep before this one; the file tells this one's
        if self._launcher is None:
            parent = multiprocessing.parent_process()  # also where it died before this
            self._launcher, self._deferred = parent.pid if parent else os.getppid(), True
            self._install()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
            threading.Thread(target=self._leave_with_launcher, name="launcher", daemon=True).start()

    @contextmanager
    def starting_workers(self) -> Iterator[None]:
        """Within it processes are started that hear no Ctrl-C before they listen; this one does, by another thread."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Within it a worker whose launcher is gone is left the time to save what it has."""
        self._working = True
        try:
            yield
        finally:
            self._working = False

    def _leave_with_launcher(self) -> None:
        """Ends a worker that waits for its pool: the pipes of a launcher that was killed stay open between workers."""
        while self._working or not self.launcher_is_gone():
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    def hand_on(self, stopped: Stopped) -> None:
        """Gives a signal on to the handler that was there before: that of submitit has SLURM start the job again.

        A job that left at SIGTERM, before SLURM kills it, would tell its launcher that it has ended.
        """
        previous = self._previous.get(stopped.number)
        if callable(previous) and stopped.number != signal.SIGINT:  # Python's own, or that of a script
            self._leave_signals(stopped.number)
            previous(stopped.number, None)
            if stopped.number == signal.SIGTERM:
                time.sleep(KILL_SECONDS)

    def _leave_signals(self, number: int) -> None:
        """Hears no signal any more: handlers that were there before do, and none twice what starts a job again.

        SLURM follows that with SIGTERM, which here would become an end of the job's own accord.
        """
        for other, previous in self._previous.items():
            heard = callable(previous) and (other != number or number == signal.SIGTERM)
            if other != signal.SIGINT:
                signal.signal(other, previous if heard else signal.SIG_IGN)

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's SIGHUP, a background job's SIGINT
                self._previous[number] = signal.signal(number, self._take)

    def _note(self, number: int) -> None:
        self._number = number
        if self._file is not None:
            with suppress(OSError):
                Path(self._file).write_text(str(number))

    def _take(self, number: int, frame: FrameType | None) -> None:
        again = self._number is not None
        self._note(number)
        if not self._deferred or (again and number == signal.SIGINT and self._launcher is None):
            self._raise(number)

    def _raise(self, number: int) -> NoReturn:
        """Raises Stopped; a launcher that cleans up, and what it starts for that, hears no further Ctrl-C."""
        if signal.SIGINT in self._previous and self._launcher is None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise Stopped(number)


stop = Stop()
