import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.data import digests, encoding, meter
from harness.data.corpus import DataConfig
from harness.data.digests import DigestSet
from harness.data.documents import START, Document
from harness.data.encoding import MOST_PROCESSES, cores, encode_all
from harness.data.meter import Meter
from harness.data.synthetic import synthetic_texts
from harness.data.tokenizer import Tokenizer, TokenizerConfig, from_encoding, tiktoken_tokenizer, train_bpe
from harness.data.tokens import prepare
from harness.errors import UserError


@pytest.fixture
def small_batches(monkeypatch):
    """Batches of a few documents, all of them for the workers but the first."""
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", 1000)
    monkeypatch.setattr(encoding, "ALONE_CHARACTERS", 1)


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return from_encoding(train_bpe(synthetic_texts(100, 400, seed=0), 400))


def documents_of(texts: list[str]) -> list[Document]:
    return [Document(text, number, False, START) for number, text in enumerate(texts)]


def children() -> list[int]:
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in found]


TEXTS = [*synthetic_texts(300, 90, seed=1), "", "<|endoftext|>", "café \U0001f600\n\n\tx", " "] * 2


@pytest.mark.parametrize("processes", [2, 3])
def test_workers_give_the_ids_of_one_process_in_order(small_batches, bpe, gpt2_files, processes):
    for encoder in (bpe, tiktoken_tokenizer("gpt2")):
        answers = list(encode_all(documents_of(TEXTS), encoder, processes))
        assert [document.digest for document, _ in answers] == list(range(len(TEXTS)))
        for (_, ids), text in zip(answers, TEXTS, strict=True):
            assert ids.tolist() == encoder.encode(text).tolist() and ids.dtype == np.uint32
    assert not children()


def test_reads_a_few_batches_ahead_only(small_batches, bpe):
    taken = []
    encoded = encode_all((taken.append(d.digest) or d for d in documents_of(TEXTS)), bpe, 2)
    for _ in range(40):
        next(encoded)
    assert len(taken) < 40 + 6 * 12  # a batch has up to 12 documents of 90 letters
    encoded.close()
    assert not children()


def test_a_store_is_the_same_from_any_number_of_processes(small_batches, corpus_of, tmp_path):
    data = corpus_of(synthetic_texts(3000, 400, seed=0) * 2, validation_tokens=5000)
    stores = []
    for processes in (1, 2, 3):
        where = DataConfig(**asdict(data) | {"store_directory": str(tmp_path / str(processes))})
        prepare(where, TokenizerConfig(vocab_size=258, training_bytes=20_000), 1, processes)
        (manifest,) = (tmp_path / str(processes)).glob("*/manifest.json")
        stores.append({path.name: path.read_bytes() for path in manifest.parent.iterdir()})
    assert sorted(stores[0]) == ["digests.bin", "manifest.json", "tokenizer.tiktoken", "train.bin", "validation.bin"]
    assert stores[0] == stores[1] == stores[2]


def test_a_text_that_cannot_be_encoded_is_told_when_its_turn_comes(small_batches, bpe):
    texts = synthetic_texts(20, 90, seed=2)
    encoded = encode_all(documents_of([*texts, "\n" * 2_000_000 + "x", *texts]), bpe, 2)
    assert [next(encoded)[0].text for _ in range(20)] == texts
    with pytest.raises(UserError, match=r"the document that begins '\\n.* cannot be encoded"):
        next(encoded)
    assert not children()


def test_a_killed_worker_is_told_in_one_sentence(small_batches, bpe):
    encoded = encode_all(documents_of(TEXTS), bpe, 2)
    for _ in range(5):
        next(encoded)
    for child in children():
        os.kill(child, signal.SIGKILL)
    with pytest.raises(UserError, match="a process that encodes text was killed: free memory, and the same command"):
        list(encoded)
    assert not children()


PROGRAM = """
import sys
from harness.data import encoding
from harness.data.documents import START, Document
from harness.data.tokenizer import from_encoding, train_bpe
encoding.ALONE_CHARACTERS = encoding.BATCH_CHARACTERS = 1
encoder = from_encoding(train_bpe(["abc"], 257))
encoded = encoding.encode_all((Document("abc", n, False, START) for n in range(10**9)), encoder, 2)
for number, _ in enumerate(encoded):
    if number == 9:
        print("encoding", flush=True)
"""


def test_workers_end_with_the_process_that_started_them():
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "encoding\n"
    workers = [
        int(child)
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers) and time.monotonic() < deadline:
        if all(_state(worker) == "Z" for worker in workers):
            break
        time.sleep(0.05)
    assert all(_state(worker) in ("Z", "gone") for worker in workers)


def _state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


# ---- what is shown meanwhile


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    return clock


def test_plain_lines_at_times_and_none_where_it_is_quick(clock, capsys):
    with Meter() as shown:
        for second in range(70):
            clock.now = float(second)
            shown.update(second / 100, second * 10**6, second * 4 * 10**6)
            if second == 2:
                assert capsys.readouterr().out == ""
    assert capsys.readouterr().out.splitlines() == [
        "tokenizing: 3 %, 3.0M tokens, 4.0 MB/s, about 2 min left",
        "tokenizing: 33 %, 33.0M tokens, 4.0 MB/s, about 1 min left",
        "tokenizing: 63 %, 63.0M tokens, 4.0 MB/s, about 37 s left",
    ]


def test_what_is_slow_is_told_once(clock, monkeypatch, capsys):
    monkeypatch.setattr(meter, "QUIET_SECONDS", 0.05)
    with meter.told_once_slow("training the tokenizer"):
        pass
    time.sleep(0.1)
    assert capsys.readouterr().out == ""
    with meter.told_once_slow("training the tokenizer"):
        time.sleep(0.2)
    assert capsys.readouterr().out == "training the tokenizer\n"
    with Meter(doing="reading") as shown:
        clock.now = 4.0
        shown.update(0.25, None, 8 * 10**6)
    assert capsys.readouterr().out == "reading: 25 %, 2.0 MB/s, about 12 s left\n"


def test_a_bar_in_a_terminal(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    console = Console(force_terminal=True, width=100, record=True)
    with Meter(console) as shown:
        clock.now = 4.0
        shown.update(0.25, 2 * 10**6, 8 * 10**6)
        assert shown.bar is not None
        shown.bar.refresh()
    said = console.export_text()
    assert "tokenizing" in said and "25 %  2.0M tokens, 2.0 MB/s, about 12 s left" in said


@given(st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30)), st.integers(0, 5))
def test_a_set_of_digests_is_a_set(before, added, most_recent):
    plain, held = set(before), DigestSet(np.array(before, np.uint64))
    digests.MOST_RECENT, kept = most_recent, digests.MOST_RECENT
    try:
        for digest in added:
            assert held.add(digest) == (digest not in plain)
            plain.add(digest)
    finally:
        digests.MOST_RECENT = kept
    assert DigestSet(np.array([2**64 - 1], np.uint64)).add(2**64 - 1) is False


def test_as_many_processes_as_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 3)
    assert cores() == 3
    monkeypatch.setattr("joblib.cpu_count", lambda: 64)
    assert cores() == MOST_PROCESSES
