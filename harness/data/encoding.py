"""Encoding in several processes: the ids of documents, in the order of the documents.

A worker is this file run as a program. It is told the encoding, then answers batches of texts until its input ends,
so it ends with the process that started it, however that ends. Each part has its length before it; numbers are
little-endian uint64, ids uint32.

    to a worker    JSON {"pattern", "special"}, ranks in tiktoken's file format; then of each batch sizes, texts
    from a worker  of each batch how many ids a text has (FAILED where it cannot be encoded), ids
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Protocol, TypeVar

import numpy as np
import tiktoken

from harness.data.tokenizer import Tokenizer, read_ranks, write_ranks
from harness.errors import UserError

# Texts go to a worker together up to so many characters.
BATCH_CHARACTERS = 2**20
# What this process encodes itself first: a small corpus is done before a worker has started.
ALONE_CHARACTERS = 2**23
MOST_PROCESSES = 16
NUMBER, ID = np.dtype("<u8"), np.dtype("<u4")
FAILED = 2**64 - 1


class Text(Protocol):
    @property
    def text(self) -> str: ...


T = TypeVar("T", bound=Text)


def cores() -> int:
    """How many processes encode where nothing else is said: cores that this process may use, a container's quota."""
    import joblib  # not in the processes that encode, which are started again and again

    return min(joblib.cpu_count(), MOST_PROCESSES)


def encode_all(texts: Iterable[T], encoder: Tokenizer, processes: int) -> Generator[tuple[T, np.ndarray], None, None]:
    """Each text with its ids, in order; a few batches of `texts` are read ahead.

    Raises UserError at a text that cannot be encoded and where a worker is killed.
    """
    rest, alone = iter(texts), 0
    for text in rest:
        yield text, _encode(text.text, encoder)
        alone += len(text.text)
        if alone >= ALONE_CHARACTERS and processes > 1 and encoder.encoding is not None:
            break
    else:
        return
    with _Workers(encoder.encoding, processes) as workers:
        for batch, answer in workers.encode(_batches(rest)):
            for text, ids in zip(batch, answer, strict=True):
                yield text, _encode(text.text, encoder) if ids is None else ids


def _encode(text: str, encoder: Tokenizer) -> np.ndarray:
    try:
        return encoder.encode(text)
    except ValueError as error:  # a million spaces or newlines in a row overflow the stack of tiktoken's regex
        raise UserError(
            f"the document that begins {text[:40]!r} cannot be encoded ({error}): remove it from the corpus"
        ) from error


def _batches(texts: Iterator[T]) -> Iterator[list[T]]:
    batch: list[T] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


Answer = list[np.ndarray | None]


class _Workers:
    """Processes that encode, and as many threads that wait for them."""

    def __init__(self, encoding: tiktoken.Encoding, processes: int) -> None:
        self.encoding = encoding
        self.processes = processes
        self.threads = ThreadPoolExecutor(processes)
        self.started: list[_Worker] = []
        self.idle = queue.SimpleQueue[_Worker]()

    def __enter__(self) -> "_Workers":
        for _ in range(self.processes):
            self.started.append(_Worker(self.encoding))
            self.idle.put(self.started[-1])
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.started:
            worker.process.kill()
        self.threads.shutdown(cancel_futures=True)
        for worker in self.started:
            worker.close()

    def encode(self, batches: Iterator[list[T]]) -> Iterator[tuple[list[T], Answer]]:
        asked: deque[tuple[list[T], Future[Answer]]] = deque()
        for batch in batches:
            asked.append((batch, self.threads.submit(self._ask, batch)))
            if len(asked) > 2 * self.processes:
                first, answer = asked.popleft()
                yield first, answer.result()
        for first, answer in asked:
            yield first, answer.result()

    def _ask(self, batch: list[T]) -> Answer:
        worker = self.idle.get()
        try:
            return worker.encode([text.text.encode() for text in batch])
        except (OSError, EOFError) as error:
            raise UserError(
                "a process that encodes text was killed: free memory, and the same command goes on from here"
            ) from error
        finally:
            self.idle.put(worker)


class _Worker:
    def __init__(self, encoding: tiktoken.Encoding) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.data.encoding"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C in a terminal is for the process that started it
        )
        self.encoding: tiktoken.Encoding | None = encoding

    def encode(self, texts: list[bytes]) -> Answer:
        pipe, answers = self.process.stdin, self.process.stdout
        assert pipe is not None and answers is not None
        if self.encoding is not None:
            described = {"pattern": self.encoding._pat_str, "special": self.encoding._special_tokens}
            _send(pipe, json.dumps(described).encode())
            _send(pipe, write_ranks(self.encoding._mergeable_ranks))
            self.encoding = None
        _send(pipe, np.array([len(text) for text in texts], NUMBER).tobytes())
        _send(pipe, b"".join(texts))
        pipe.flush()
        counts = np.frombuffer(_receive(answers), NUMBER)
        ids = np.frombuffer(_receive(answers), ID)
        found = np.where(counts == FAILED, 0, counts)
        parts = np.split(ids, np.cumsum(found)[:-1])
        return [None if count == FAILED else part for count, part in zip(counts, parts, strict=True)]

    def close(self) -> None:
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what a killed worker did not take is still in the buffer
                pipe.close()


def _send(pipe: IO[bytes], content: bytes) -> None:
    pipe.write(np.array([len(content)], NUMBER).tobytes())
    pipe.write(content)


def _receive(pipe: IO[bytes]) -> bytes:
    header = pipe.read(NUMBER.itemsize)
    size = int(np.frombuffer(header, NUMBER)[0]) if len(header) == NUMBER.itemsize else 0
    content = pipe.read(size)
    if len(header) < NUMBER.itemsize or len(content) < size:
        raise EOFError
    return content


def serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    """What a worker does."""
    described = json.loads(_receive(questions))
    encoding = tiktoken.Encoding(
        "worker",
        pat_str=described["pattern"],
        mergeable_ranks=read_ranks(_receive(questions)),
        special_tokens=described["special"],
    )
    while True:
        sizes = np.frombuffer(_receive(questions), NUMBER)
        texts = _receive(questions)
        counts, parts, start = np.empty(len(sizes), NUMBER), [], 0
        for number, size in enumerate(sizes.tolist()):
            try:
                ids = encoding.encode_to_numpy(texts[start : start + size].decode(), disallowed_special=())
                counts[number] = len(ids)
                parts.append(ids.astype(ID, copy=False).tobytes())
            except ValueError:
                counts[number] = FAILED
            start += size
        _send(answers, counts.tobytes())
        _send(answers, b"".join(parts))
        answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(EOFError, BrokenPipeError):
        serve(sys.stdin.buffer, sys.stdout.buffer)
