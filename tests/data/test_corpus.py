import json
import math
from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from harness.data import local_files
from harness.data.corpus import DataConfig, digest_of, identity, open_corpus
from harness.data.synthetic import BITS_PER_LETTER, LETTERS, STEPS, synthetic_texts, write_corpus
from harness.errors import UserError


def texts_of(data: DataConfig, tmp_path) -> list[str]:
    return [document.text for document in open_corpus(data, None, tmp_path / "cache").training()]


def test_digest_is_the_head_of_sha256():
    """SHA-256 of "abc" begins ba7816bf 8f01cfea (FIPS 180-2, appendix B.1)."""
    assert digest_of("abc") == 0xBA7816BF8F01CFEA


def test_order_is_by_hash_and_duplicates_and_blanks_are_dropped(corpus_of, tmp_path):
    texts = ["one", "two", "three", "four", "two", "", " \n", "five"]
    corpus = open_corpus(corpus_of(texts), None, tmp_path / "cache")
    by_hash = sorted({"one", "two", "three", "four", "five"}, key=digest_of)
    assert [document.text for document in corpus.aside()] == by_hash[:2]
    assert [document.text for document in corpus.training()] == by_hash[2:] + by_hash[:2]
    assert [document.aside for document in corpus.training()] == [False, False, False, True, True]
    assert corpus.duplicates == 1


def test_every_kind_of_file_gives_the_same_documents(tmp_path):
    texts = synthetic_texts(300, 20, seed=1)  # more than one block of reading
    expected = sorted(set(texts), key=digest_of)
    half = len(expected) // 2
    folder = tmp_path / "in [1]*"  # a name that is also a pattern
    for name in ("txt", "jsonl", "parquet", "disk"):
        (folder / name).mkdir(parents=True)
    for position, text in enumerate(texts):
        (folder / "txt" / f"{position}.txt").write_text(text)
    for start in (0, 150):
        part = texts[start : start + 150]
        lines = [json.dumps({"body": text, "other": 1}) for text in part]
        (folder / "jsonl" / f"{start}.jsonl").write_text("\n".join(lines))
        pa.parquet.write_table(pa.table({"body": part}), folder / "parquet" / f"{start}.parquet")
    split = datasets.Dataset.from_dict({"body": texts})
    datasets.DatasetDict({"train": split}).save_to_disk(str(folder / "disk"))
    split.save_to_disk(str(folder / "plain"))
    for name, source in (
        ("txt", "files"), ("jsonl", "files"), ("parquet", "files"), ("disk", "disk"), ("plain", "disk")
    ):  # fmt: skip
        data = DataConfig(source=source, path=str(folder / name), text_field="body")
        assert texts_of(data, tmp_path) == expected[half:] + expected[:half], name


def test_a_glob_a_folder_and_a_file(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.md", "deep/c.txt", "note.csv"):
        (tmp_path / name).write_text(name)
    names = lambda path: [file.name for file in local_files.find_files(str(path)).files]  # noqa: E731
    assert names(tmp_path) == ["a.md", "b.txt", "c.txt"]
    assert names(tmp_path / "*.txt") == ["b.txt"]
    assert names(tmp_path / "**/*.txt") == ["b.txt", "c.txt"]
    assert names(tmp_path / "deep/c.txt") == ["c.txt"]


def test_identity_is_the_content_not_the_place(tmp_path):
    def identity_of(folder: str, files: dict[str, str], **keys):
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name).write_text(content)
        return identity(DataConfig(source="files", path=str(tmp_path / folder), **keys))

    base = identity_of("a", {"1.txt": "x", "2.txt": "y"})
    assert identity_of("b", {"3.txt": "y", "4.txt": "x"}) == base
    assert identity_of("c", {"1.txt": "x", "2.txt": "z"}) != base
    assert identity_of("d", {"1.txt": "x", "2.txt": "y"}, sample_by="line") != base


def test_large_files_are_known_by_their_sizes_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(local_files, "FULL_HASH_BYTES", 5)
    monkeypatch.setattr(local_files, "END_BYTES", 2)
    file = tmp_path / "a.txt"

    def print_of(text: str) -> str:
        file.write_text(text)
        return local_files.fingerprint([file])

    base = print_of("abcdefgh")
    assert print_of("abcdefgX") != base
    assert print_of("Xbcdefgh") != base
    assert print_of("abcdefghh") != base


def test_paragraphs_and_lines(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\nfour\n")
    for sample_by, expected in (("paragraph", {"one\ntwo", "three\nfour"}), ("line", {"one", "two", "three", "four"})):
        data = DataConfig(source="files", path=str(tmp_path / "a.txt"), sample_by=sample_by)
        assert {text.strip() for text in texts_of(data, tmp_path)} == expected


def test_nothing_of_datasets_reaches_the_terminal(corpus_of, tmp_path, capfd):
    texts_of(corpus_of(["one", "two"]), tmp_path)
    with pytest.raises(UserError):
        (tmp_path / "bad.jsonl").write_text('{"text": "one"}\n{"text": \n')
        texts_of(DataConfig(source="files", path=str(tmp_path / "bad.jsonl")), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_synthetic_entropy_is_what_it_says(tmp_path):
    assert -sum(p * math.log2(p) for p in STEPS) == BITS_PER_LETTER
    texts = synthetic_texts(200, 500, seed=3)
    assert texts == synthetic_texts(200, 500, seed=3) != synthetic_texts(200, 500, seed=4)
    pairs = Counter((a, b) for text in texts for a, b in zip(text, text[1:], strict=False))
    total = sum(pairs.values())
    assert total == 200 * 499
    firsts = Counter(a for a, _ in pairs.elements())
    entropy = sum(-count / total * math.log2(count / firsts[a]) for (a, _), count in pairs.items())
    # The plug-in estimate is low by (parameters / 2) / samples nats: 16 * 3 / 2 / 99800 / ln 2 = .0003 bits.
    assert entropy == pytest.approx(BITS_PER_LETTER, abs=0.01)
    assert {b for a, b in pairs if a == "b"} == {LETTERS[5 + step] for step in range(4)}
    write_corpus(tmp_path / "a.jsonl", 3, 500, seed=3)
    assert [json.loads(line)["text"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == synthetic_texts(
        3, 500, seed=3
    )


def write(tmp_path, name: str, content: bytes) -> str:
    (tmp_path / name).write_bytes(content)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "holds no text, its files are empty"),
        ("a.csv", b"x", r"a.csv is of no known kind: rename it to one of .txt"),
        ("a.txt", b"good\xffbad", "a.txt is not UTF-8 at byte 4: convert it"),
        ("a.txt", b"cut \xe6\x97", "a.txt is not UTF-8 at byte 4: convert it"),
        ("a.txt", b"x" * (2**20 - 1) + "é".encode() + b"\xff", f"not UTF-8 at byte {2**20 + 1}:"),
        ("a.txt", b" \n ", "holds no text"),
        ("a.txt", b"one document", "holds one document only, and validation needs one of its own: give more$"),
        ("a.txt", b"word " * 2000, "holds one document only.*give more, or cut it by data.document_characters=5000$"),
        ("a.txt", b"one\ntwo", "holds one document only.*cut it by data.sample_by=line"),
        ("a.txt", b"one\n\ntwo\nx", "holds one document only.*cut it by data.sample_by=paragraph"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": "b"\n', r"a.jsonl line 3 is not JSON .*: repair that line"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b', "a.jsonl line 2 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "a.jsonl is not UTF-8 at byte 24:"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "holds one document only"),
        ("a.jsonl", b'{"text": null}\n', "holds no text: choose a corpus"),
        ("a.jsonl", b'{"text": "a"}\n"b"\n', "a.jsonl line 2 has no text in data.text_field=text"),
        ("a.jsonl", b'{"text": 1}\n{"text": 2}\n', "a.jsonl line 1 has no text in data.text_field=text"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\\ud800"}\n', "a.jsonl line 2 holds half a surrogate pair"),
        ("a.jsonl", b"\n\n", "holds no text: choose a corpus"),
        ("a.jsonl", b"1\n2\n", "a.jsonl line 1 has no text in data.text_field=text"),
        ("a.jsonl", b'{"text": ' + b"[" * 10**5 + b"\n", "a.jsonl line 1 is not JSON"),
        ("a.jsonl", b'{"body": "a"}\n{"body": "b"}\n', "data.text_field=text is no field of .*: choose one of body"),
        ("a.parquet", b"PAR1 but no more", "a.parquet is truncated or no Parquet file"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    data = DataConfig(source="files", path=write(tmp_path, name, content))
    with pytest.raises(UserError, match=message):
        identity(data)
        texts_of(data, tmp_path)


def test_bad_parquet_columns(tmp_path):
    pa.parquet.write_table(pa.table({"body": ["a", "b"], "n": [1, 2]}), tmp_path / "a.parquet")
    for field, message in (("text", "not a column of .*: choose one of body, n"), ("n", "n holds int64")):
        with pytest.raises(UserError, match=message):
            texts_of(DataConfig(source="files", path=str(tmp_path / "a.parquet"), text_field=field), tmp_path)
    pa.parquet.write_table(pa.table({"text": ["a", None, "b"]}), tmp_path / "b.parquet")
    assert texts_of(DataConfig(source="files", path=str(tmp_path / "b.parquet")), tmp_path) == ["a", "b"]
    cut = pa.array([b"a", b"\xff"]).view(pa.string())
    pa.parquet.write_table(pa.table({"text": cut}), tmp_path / "d.parquet")
    with pytest.raises(UserError, match="data.text_field=text is not UTF-8 near row 1"):
        texts_of(DataConfig(source="files", path=str(tmp_path / "d.parquet")), tmp_path)
    whole = (tmp_path / "b.parquet").read_bytes()
    with pytest.raises(UserError, match="c.parquet is truncated"):
        texts_of(DataConfig(source="files", path=write(tmp_path, "c.parquet", whole[: len(whole) // 2])), tmp_path)


def test_parquet_without_rows_and_with_damage_inside(tmp_path):
    """The first counts as a document without text. The damage is 64 bytes of zeros in the middle, where the text is."""
    data = DataConfig(source="files", path=str(tmp_path))
    texts = synthetic_texts(500, 100, seed=0)
    pa.parquet.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    pa.parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "b.parquet")
    corpus = open_corpus(data, None, tmp_path / "cache")
    assert (corpus.documents, corpus.skipped) == (500, "1 document without text")
    content = (tmp_path / "a.parquet").read_bytes()
    middle = len(content) // 3
    (tmp_path / "b.parquet").write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    with pytest.raises(UserError, match=r"b.parquet is damaged \(.*\): replace it"):
        texts_of(data, tmp_path)


def test_only_the_text_of_parquet_is_read(tmp_path):
    """So files may differ in the other columns."""
    pa.parquet.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
    pa.parquet.write_table(pa.table({"n": [1], "text": ["c"]}), tmp_path / "b.parquet")
    assert sorted(texts_of(DataConfig(source="files", path=str(tmp_path)), tmp_path)) == ["a", "b", "c"]


def test_missing_and_mixed_files(tmp_path):
    with pytest.raises(UserError, match=r"data.path=.*nowhere matches no .txt, "):
        identity(DataConfig(source="files", path=str(tmp_path / "nowhere")))
    write(tmp_path, "a.txt", b"a"), write(tmp_path, "b.jsonl", b"{}")
    with pytest.raises(UserError, match="mixes json and text files"):
        identity(DataConfig(source="files", path=str(tmp_path)))


def test_bad_directories_of_save_to_disk(tmp_path):
    datasets.Dataset.from_dict({"text": ["a" * 100, "b" * 100]}).save_to_disk(str(tmp_path / "d"))
    texts_of(data := DataConfig(source="disk", path=str(tmp_path / "d")), tmp_path)
    with pytest.raises(UserError, match="data.text_field=body is no column of"):
        texts_of(DataConfig(source="disk", path=str(tmp_path / "d"), text_field="body"), tmp_path)
    with pytest.raises(UserError, match="holds no split train made by save_to_disk"):
        identity(DataConfig(source="disk", path=str(tmp_path)))
    arrow = next((tmp_path / "d").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:150])
    with pytest.raises(UserError, match="is truncated or was not made by save_to_disk"):
        texts_of(data, tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"source": "web"}, "data.source=web is unknown"),
        ({"source": "package", "path": "x"}, "data.name is not set, and data.source=package needs it"),
        ({"source": "files"}, "data.path is not set"),
        ({"source": "hub"}, "data.name is not set"),
        ({"source": "disk"}, "data.path is not set"),
        ({"source": "files", "path": "x", "sample_by": "word"}, "data.sample_by=word is unknown"),
        ({"source": "files", "path": "x", "store_directory": ""}, "data.store_directory is empty: name a folder"),
        ({"source": "files", "path": "x", "validation_tokens": 0}, "data.validation_tokens=0 must be at least 1"),
    ],
)
def test_configurations_that_cannot_be(keys, message):
    with pytest.raises(UserError, match=message):
        DataConfig(**keys).check()


@pytest.mark.parametrize("name", ["no_such_package_at_all", "json.decoder", "..", "no.such.package"])
def test_a_package_that_is_not_installed(name):
    with pytest.raises(UserError, match="is no installed package"):
        identity(DataConfig(source="package", name=name, path="*.txt"))


def test_aside_is_at_least_one_document_and_never_all(corpus_of, tmp_path):
    corpus = open_corpus(corpus_of(["one", "two"]), None, tmp_path / "cache")
    assert [document.aside for document in corpus.training()] == [False, True]
    assert np.array_equal(corpus.digests, sorted([digest_of("one"), digest_of("two")]))
