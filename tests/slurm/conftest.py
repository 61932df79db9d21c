import os
from pathlib import Path

import pytest

from harness.data.synthetic import write_corpus


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Path:
    """The folder of the SLURM that tests/slurm/up.sh started; jobs of tests go to no other."""
    if "HARNESS_SLURM" not in os.environ:
        pytest.skip('no SLURM of our own runs: eval "$(tests/slurm/up.sh /tmp/slurm)" starts one, .ci/run does too')
    return Path(os.environ["HARNESS_SLURM"])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> list[str]:
    """Overrides that select a small corpus, in bytes, models small enough for a test, and SLURM."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder / "letters.jsonl", documents=400, letters=255, seed=0)
    return [
        "hydra/launcher=slurm", "data=files", f"data.path={folder}/letters.jsonl", "data.validation_tokens=4000",
        f"data.store_directory={folder}/stores", "tokenizer=bytes", "model.seq_len=32", "model.head_size=8",
        "optimizer.batch_tokens.value=256", "optimizer.warmup_tokens.value=1024",
    ]  # fmt: skip
