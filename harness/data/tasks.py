"""Small exact tasks, a line each, to train on behind the documents of a text and to validate on by their answers alone.

    wqzkfba=wqzkfba     copying        seven letters
    +1758+5830=6588     addition       of two numbers of four digits, each digit modulo 10
    [<>((()[]<=>))]     brackets       the four that are still open, the last one first

A tenth of the instances of each task, by a hash, validates and is never trained on, a sum in neither order. Lines that
validate stand as those that train, each at a multiple of LINE_TOKENS.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from harness.data.documents import NOTHING_READ, START, Document, Place, digest_of

# Raise it when lines change: stores of before are then other ones.
REVISION = 1
# With the line end, or the end of text in its place; a line's bytes are its tokens.
LINE_TOKENS = 16
HELD_OUT = 10  # one in so many
DOCUMENT_LINES = 64
MIXED, ASIDE = 5, 6  # streams, beside those of language.py and facts.py
LETTERS, OPEN, CLOSE = "abcdefghijklmnopqrstuvwxyz", "([{<", ")]}>"
# The ways to open seven brackets and close three of them, each after it was opened.
PATHS = [path for path in product((1, -1), repeat=10) if sum(path) == 4 and min(np.cumsum(path)) >= 0]


@dataclass(frozen=True)
class Task:
    """
    answer_tokens   the last so many of a line, without its end
    symbols         how many a token of an answer may be, alike for who has not understood the question
    instances       how many there are, by number
    line            the text of one
    alike           a number by which an instance is held out, one for all that give away each other's answers
    """

    name: str
    answer_tokens: int
    symbols: int
    instances: int
    line: Callable[[int], str]
    alike: Callable[[int], int] = int

    def held_out(self, number: int) -> bool:
        return digest_of(f"{self.name} {self.alike(number)}") % HELD_OUT == 0


def _copying(number: int) -> str:
    word = ""
    for _ in range(7):
        number, letter = divmod(number, 26)
        word += LETTERS[letter]
    return f"{word}={word}"


def _addition(number: int) -> str:
    a, b = (f"{part:04}" for part in divmod(number, 10_000))
    return f"+{a}+{b}={''.join(str((int(x) + int(y)) % 10) for x, y in zip(a, b, strict=True))}"


def _either_order(number: int) -> int:
    a, b = sorted(divmod(number, 10_000))
    return 10_000 * a + b


def _brackets(number: int) -> str:
    number, path = divmod(number, len(PATHS))
    text, open_kinds = "", list[int]()
    for step in PATHS[path]:
        if step == 1:
            number, kind = divmod(number, 4)
            open_kinds.append(kind)
            text += OPEN[kind]
        else:
            text += CLOSE[open_kinds.pop()]
    return f"{text}={''.join(CLOSE[kind] for kind in reversed(open_kinds))}"


TASKS = {
    task.name: task
    for task in (
        Task("copying", 7, 26, 26**7, _copying),
        Task("addition", 4, 10, 10**8, _addition, _either_order),
        Task("brackets", 4, 4, 4**7 * len(PATHS), _brackets),
    )
}


def with_tasks(text: str, share: float, key: int) -> str:
    """A document with so many lines of tasks behind it, in any order, that they are `share` of its bytes in the mean.

    The draws are a function of `key`, 64 bits.
    """
    raw = _raw(key, MIXED)
    wanted = share / (1 - share) * (len(text.encode()) + 1) / LINE_TOKENS  # with the end of text
    tasks, lines = list(TASKS.values()), [text]
    for _ in range(int(wanted + next(raw) / 2**64)):
        task = tasks[next(raw) % len(tasks)]
        lines.append(next(_lines(task, raw, held_out=False)))
    return "\n".join(lines)


def _lines(task: Task, raw: Iterator[int], held_out: bool) -> Iterator[str]:
    numbers = (draw % task.instances for draw in raw)
    return (task.line(number) for number in numbers if task.held_out(number) == held_out)


def _raw(key: int, stream: int) -> Iterator[int]:
    """Raw bits, which are the same in every version of numpy."""
    bits = np.random.Philox(key=np.array([key, stream], np.uint64))
    while True:
        yield from bits.random_raw(64).tolist()


class TaskCorpus:
    """What validates of one task: documents of DOCUMENT_LINES lines, without end."""

    aside_share = "all"
    duplicates, skipped, note = 0, "", ""

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed = task, seed
        self.revision: str | None = None
        self.documents: int | None = None

    def aside(self) -> Iterator[Document]:
        lines = _lines(self.task, _raw(self.seed, ASIDE), held_out=True)
        while True:
            text = "\n".join(next(lines) for _ in range(DOCUMENT_LINES))
            yield Document(text, digest_of(text), aside=True)

    def beside(self, validating: np.ndarray) -> np.ndarray:
        return NOTHING_READ

    def training(self, read: np.ndarray = NOTHING_READ, place: Place = START) -> Iterator[Document]:
        raise AssertionError("a task validates only")
