"""What lies in a folder that somebody hands over: documents, and what is none."""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.data.corpus import DataConfig, open_corpus
from harness.data.cutting import cut, marker_of
from harness.data.local_files import find_files
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare
from harness.errors import UserError

TEXTS = ["one", "two words", "café\n\nthree"]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
APPLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "


def read(path, tmp_path, **keys) -> list[str]:
    corpus = open_corpus(DataConfig(source="files", path=str(path), **keys), None, tmp_path / "cache")
    return sorted(document.text for document in corpus.training())


def fill(folder, files: dict[str, bytes]):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


# ---- which files


@pytest.mark.parametrize(
    ("files", "taken", "skipped"),
    [
        ({"a.jsonl": LINES, "._a.jsonl": APPLE, ".DS_Store": b"x", "__MACOSX/._b.jsonl": APPLE},
         ["a.jsonl"], {"hidden file or folder": 3}),
        ({"a.txt": b"x", "~$a.txt": b"", ".git/x.md": b"x", ".b.txt.swp": b"x", "a.txt~": b"x"},
         ["a.txt"], {"hidden file or folder": 3, "file of another kind": 1}),
        ({"a.parquet": b"x", "README.md": b"x", "LICENSE.txt": b"x", ".gitattributes": b"", "dataset_info.json": b"{}",
          ".cache/huggingface/download/a.parquet.metadata": b"x"},
         ["a.parquet"], {"hidden file or folder": 2, "file beside the documents": 3}),
        ({"a.jsonl": LINES, "b.jsonl": b"", "_SUCCESS": b"", "Thumbs.db": b"x"},
         ["a.jsonl"], {"empty file": 2, "file of another kind": 1}),
        ({"a.jsonl": LINES, "a.jsonl.gz": b"x", "b.jsonl.zst": b"x"},
         ["a.jsonl", "b.jsonl.zst"], {"compressed copy": 1}),
        ({"a.txt": b"x", "b.jsonl.gz": b"x", "c.json": b"x", "all.zip": b"x"},
         ["a.txt"], {"file beside the documents": 3}),
        ({"a.json": b"x", "state.json": b"x", "README.md": b"x"}, ["a.json"], {"file beside the documents": 2}),
        ({"c4.JSON.GZ": b"x", "README.md": b"x"}, ["c4.JSON.GZ"], {"file beside the documents": 1}),
        ({"README.md": b"x", "deep/er/readme.md": b"x", "a.txt": b"x"}, ["README.md", "a.txt", "readme.md"], {}),
        ({"all.tar.xz": b"x", "README.md": b"x"}, ["all.tar.xz"], {"file beside the documents": 1}),
    ],
)  # fmt: skip
def test_what_is_no_document_is_skipped_and_counted(tmp_path, files, taken, skipped):
    found = find_files(str(fill(tmp_path / "in", files)))
    assert [file.name for file in found.files] == taken
    assert dict(found.skipped) == skipped


def test_the_counts_stand_in_the_line_that_describes_the_corpus(tmp_path):
    from harness.sweep.run import store_line

    rows = b'{"text": ""}\n{"text": null}\n{"other": 1}\n'
    folder = fill(tmp_path / "in", {"a.jsonl": LINES + rows, "._a.jsonl": APPLE, ".b": b"", "c.jsonl": b""})
    data = DataConfig(
        source="files", path=str(folder), validation_tokens=1, store_directory=str(tmp_path / "stores")
    )
    store = prepare(data, TokenizerConfig(kind="bytes"), 1)
    said = "skipped: 2 hidden files or folders, 1 empty file, 3 documents without text"
    assert store_line(store).endswith(said)
    assert store_line(prepare(data, TokenizerConfig(kind="bytes"), 1)).endswith(said)  # of the store that is there
    (folder / "a.jsonl").write_bytes(LINES)
    for name in ("._a.jsonl", ".b", "c.jsonl"):
        (folder / name).unlink()
    assert store_line(prepare(data, TokenizerConfig(kind="bytes"), 1)).endswith("bytes a token")


def test_folders_behind_links_are_read_once_and_loops_end(tmp_path):
    fill(tmp_path, {"in/a.txt": b"a", "elsewhere/b.txt": b"b", "elsewhere/deep/c.txt": b"c"})
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/again").symlink_to(tmp_path / "elsewhere/deep")
    (tmp_path / "in/twice").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone.txt").symlink_to(tmp_path / "nowhere")
    found = find_files(str(tmp_path / "in"))
    assert [file.name for file in found.files] == ["a.txt", "c.txt", "b.txt"]
    assert dict(found.skipped) == {"broken link": 1}


def test_what_may_not_be_read_is_said():
    """As a user who is not root."""
    program = (
        "import os, sys\n"
        "from harness.data.corpus import DataConfig, identity\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: identity(DataConfig(source='files', path=path))\n"
        "    except ValueError as error: print(error)"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = fill(Path(name), {"in/a.txt": b"a", "in/closed/b.txt": b"b", "file/b.txt": b"b", "shut/c.txt": b"c"})
        folder.chmod(0o755)
        for closed in ("in/closed", "file/b.txt", "shut"):
            (folder / closed).chmod(0)
        paths = [str(folder / path) for path in ("in", "file", "shut", "shut/c.txt", "x" * 300)]
        answer = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True)
        for closed in ("in/closed", "shut"):
            (folder / closed).chmod(0o755)
    assert answer.stdout.replace(name, "").splitlines() == [
        "data.path: /in/closed cannot be read (Permission denied)",
        "data.path: /file/b.txt cannot be read (Permission denied)",
        "data.path: /shut cannot be read (Permission denied)",
        "data.path: /shut/c.txt cannot be read (Permission denied)",
        f"data.path: /{'x' * 300} cannot be read (File name too long)",
    ], answer.stderr


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.txt": b"", "b.md": b""}, "holds no text, its files are empty"),
        ({"a.parquet": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"},
         "a.parquet is a Git LFS pointer, not the data: run `git lfs pull`"),
        ({"a.arrow": b"x"}, "matches no .txt, .*; data=disk reads what save_to_disk wrote"),
        ({"a.jsonl.gz": b"x", "b.txt.gz": b"x"}, "mixes json and text files"),
        ({"a.txt": "wide".encode("utf-16")}, "a.txt is UTF-16: convert it, as by iconv"),
        ({"a.jsonl": LINES.decode().encode("utf-16")}, "a.jsonl is UTF-16: convert it, as by iconv"),
        ({"a.jsonl.gz": gzip.compress(LINES)[:-9]}, "a.jsonl.gz is damaged .*: replace it"),
        ({"a.jsonl.gz": b"no gzip"}, "a.jsonl.gz is damaged .*: replace it"),
        ({"a.jsonl.zst": b"no zstd"}, "a.jsonl.zst is damaged .*: replace it"),
        ({"a.jsonl.xz": lzma.compress(LINES)[:-9]}, "a.jsonl.xz is damaged .*: replace it"),
        ({"a.jsonl.bz2": b"BZh9" + b"x" * 50}, "a.jsonl.bz2 is damaged .*: replace it"),
        ({"a.zip": b"PK no zip"}, "a.zip is damaged .*: replace it"),
        ({"a.tar.gz": gzip.compress(b"no tar" * 200)}, "a.tar.gz is damaged .*: replace it"),
        ({"a.json": b"[{\"text\": \"a\"},"}, "a.json line 1 is not JSON"),
        ({"a.jsonl": LINES, "b.jsonl": b'{"body": "x", "n": 1}\n'}, "=text is no field of .*b.jsonl: .* body, n"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(tmp_path, files, said):
    from harness.data.corpus import identity

    with pytest.raises(UserError, match=said) as caught:
        identity(DataConfig(source="files", path=str(fill(tmp_path / "in", files))))
        read(tmp_path / "in", tmp_path)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").glob("*/*"))


# ---- compressed


def packed(codec: str, content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: packed("zstd", content),
    "lz4": lambda content: packed("lz4", content),
}


@pytest.mark.parametrize("extension", COMPRESS)
def test_compressed_files_give_what_is_in_them(tmp_path, extension):
    compress = COMPRESS[extension]
    half = LINES.index(b"\n") + 1
    for name, content in (
        ("a.jsonl", LINES),
        ("c4.json", LINES),
        ("array.json", json.dumps([{"text": text} for text in TEXTS], indent=1).encode()),
        ("a.txt", "---".join(TEXTS).encode()),
    ):
        folder = fill(tmp_path / name, {f"{name}.{extension}": compress(content)})
        assert read(folder, tmp_path, separator="---" if name == "a.txt" else None) == sorted(TEXTS)
    twice = fill(tmp_path / "twice", {f"a.jsonl.{extension}": compress(LINES[:half]) + compress(LINES[half:])})
    assert read(twice, tmp_path) == sorted(TEXTS)  # as cat joins them, and as pigz and pzstd write
    pa.parquet.write_table(pa.table({"text": TEXTS}), sink := io.BytesIO())
    assert read(fill(tmp_path / "p", {f"a.parquet.{extension}": compress(sink.getvalue())}), tmp_path) == sorted(TEXTS)


def test_archives_are_folders(tmp_path):
    members = {"d/a.jsonl.gz": gzip.compress(LINES), "d/._a.jsonl": APPLE, "README.md": b"x", "d/c.jsonl": b""}
    with zipfile.ZipFile(fill(tmp_path, {"zip/x": b""}) / "zip/a.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    for folder, mode in (("tar", "w"), ("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar.xz", "w:xz")):
        (tmp_path / folder).mkdir()
        with tarfile.open(tmp_path / folder / f"a.{folder}", mode) as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        assert read(tmp_path / folder, tmp_path) == sorted(TEXTS), folder
    assert read(tmp_path / "zip", tmp_path) == sorted(TEXTS)


# ---- only the text counts


OTHERS = [None, 1, 2.5, "x", True, [1, "a"], {"lang": "en"}, {"lang": 3, "more": []}, "2020-01-01"]


def test_only_the_text_of_json_counts(tmp_path):
    texts = [f"text {number}" for number in range(len(OTHERS))]
    for number, (text, other) in enumerate(zip(texts, OTHERS, strict=True)):
        fill(tmp_path / "in", {f"{number}.jsonl": json.dumps({"text": text, "metadata": other}).encode()})
    assert read(tmp_path / "in", tmp_path) == sorted(texts)
    lines = [json.dumps({"metadata": other, "text": text}) for text, other in zip(texts, OTHERS, strict=True)]
    for name, content in (("one", "\n".join(lines)), ("crlf", "\r\n".join(lines)), ("bom", "\ufeff" + "\n".join(lines)),
                          ("spaced", " ".join(lines)), ("array", "[" + ",\n".join(lines) + "]")):  # fmt: skip
        assert read(fill(tmp_path / name, {"a.jsonl": content.encode()}), tmp_path) == sorted(texts), name


STRINGS = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.binary(),
           pa.dictionary(pa.int8(), pa.large_string()), pa.large_binary()]  # fmt: skip


def test_text_of_any_string_type_of_arrow(tmp_path):
    expected = []
    for number, kind in enumerate(STRINGS):
        texts = [f"{text} {number}" for text in TEXTS]
        column = pa.array([*texts, None], pa.string())
        column = column.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else column.cast(kind)
        columns = {"n": list(range(4)), "text": column} if number % 2 else {"text": column, "n": [["a"]] * 4}
        path = fill(tmp_path, {"in/x": b""}) / "in" / f"{number}.parquet"
        pa.parquet.write_table(pa.table(columns), path)
        expected += texts
    assert read(tmp_path / "in", tmp_path) == sorted(expected)
    pa.parquet.write_table(pa.table({"text": [[text] for text in TEXTS]}), tmp_path / "list.parquet")
    with pytest.raises(UserError, match="data.text_field=text holds list<.*: choose a column of text"):
        read(tmp_path / "list.parquet", tmp_path)


def test_a_nested_field(tmp_path):
    rows = [{"meta": {"body": text, "n": [1]}, "a": 1} for text in TEXTS]
    expected = sorted(TEXTS)
    fill(tmp_path, {"a.jsonl": "\n".join(map(json.dumps, rows)).encode()})
    pa.parquet.write_table(pa.Table.from_pylist([*rows, {"meta": None, "a": 1}]), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert read(tmp_path / name, tmp_path, text_field="meta.body") == expected
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "disk"))
    data = DataConfig(source="disk", path=str(tmp_path / "disk"), text_field="meta.body")
    assert sorted(d.text for d in open_corpus(data, None, tmp_path / "cache").training()) == expected
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(UserError, match="data.text_field=meta.x "):
            read(tmp_path / name, tmp_path, text_field="meta.x")
    fill(tmp_path, {"b.jsonl": b'{"a.b": "one"}\n{"a.b": "two"}\n'})
    assert read(tmp_path / "b.jsonl", tmp_path, text_field="a.b") == ["one", "two"]


def test_nulls_of_a_dataset_on_disk_are_skipped(tmp_path):
    datasets.Dataset.from_dict({"text": ["a", None, "b", " "]}).save_to_disk(str(tmp_path / "d"))
    corpus = open_corpus(DataConfig(source="disk", path=str(tmp_path / "d")), None, tmp_path)
    assert (sorted(d.text for d in corpus.training()), corpus.skipped) == (["a", "b"], "2 documents without text")


# ---- cutting


def test_a_size_to_cut_by(tmp_path):
    # of 22 letters the last space is the 20th
    assert [piece for piece, _ in cut(["word " * 9], None, 22)] == ["word " * 4, "word " * 4, "word "]
    assert list(cut(["x" * 25, "y"], None, 10)) == [("x" * 10, False), ("x" * 10, True), ("x" * 5, True), ("y", False)]
    (tmp_path / "b.txt").write_text(" ".join(map(str, range(1000, 1100))))
    pieces = read(tmp_path / "b.txt", tmp_path, document_characters=52)
    assert len(pieces) == 10 and set(map(len, pieces)) == {50, 49}
    assert "".join(pieces) == (tmp_path / "b.txt").read_text()


@given(st.text(alphabet="ab \n\u2028é", max_size=300), st.integers(1, 40))
def test_pieces_make_up_the_text(text, characters):
    pieces = [piece for piece, _ in cut([text], None, characters)]
    assert "".join(pieces) == (text if text.strip() else "")
    assert all(len(piece) <= characters for piece in pieces)


def test_a_separator(tmp_path):
    expected = ["a\n\nb", "c", "d e"]
    text = "a\n\nb\n<|endoftext|>\nc<|endoftext|>\r\n\r\n<|endoftext|>d e\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    fill(tmp_path, {"a.jsonl": json.dumps({"text": text}).encode()})
    for name in ("a.txt", "a.jsonl"):
        assert read(tmp_path / name, tmp_path, separator="<|endoftext|>") == expected
    (tmp_path / "b.txt").write_text("a\nb\n---\nc")
    assert read(tmp_path / "b.txt", tmp_path, separator=r"\n---\n") == ["a\nb", "c"]


def test_what_is_typed_against_a_marker_cuts_there(tmp_path):
    """The sentence's own words, through a shell and Hydra."""
    import re
    import shlex

    from harness.commands import compose_config

    for number, marker in enumerate(("<|endoftext|>", "</s>", "[EOS]", "<|end_of_text|>")):
        (tmp_path / f"{number}.txt").write_text(f"\n{marker}\n".join(f"story {n}" for n in range(20)))
        with pytest.raises(UserError, match="one document only") as caught:
            read(tmp_path / f"{number}.txt", tmp_path)
        typed = shlex.split(re.search(r"cut it by (.*)$", str(caught.value))[1])
        separator = compose_config("train", typed).data.separator
        assert separator == marker
        expected = sorted(f"story {n}" for n in range(20))
        assert read(tmp_path / f"{number}.txt", tmp_path, separator=separator) == expected


def test_a_marker_that_many_documents_hold_is_told(tmp_path):
    rows = [f"story {number}<|endoftext|>" for number in range(20)]
    fill(tmp_path, {"a.jsonl": "".join(json.dumps({"text": row}) + "\n" for row in rows).encode()})
    corpus = open_corpus(DataConfig(source="files", path=str(tmp_path / "a.jsonl")), None, tmp_path / "cache")
    assert corpus.note == (
        "<|endoftext|> stands in 20 of 20 documents as text: data.separator='\"<|endoftext|>\"' cuts there"
    )
    assert marker_of(["a <b> of <|endoftext|>"] * 9) is None  # so few may be about it
    assert marker_of([*["<|endoftext|>"] * 10, *["x"] * 91]) is None  # less than a tenth
    assert marker_of([*["<|endoftext|>"] * 10, *["x"] * 90]) == ("<|endoftext|>", 10)


# ---- any folder


NAMES = st.sampled_from(
    ["a.txt", "b.txt", "c.jsonl", "d.json", "e.parquet", ".f.txt", "._c.jsonl", "README.md", "g/h.txt", "g/i.jsonl",
     "a.txt.gz", "c.jsonl.zst", "j.zip", "k.tar.gz", "l.csv", "m.txt.xz", "n.jsonl.bz2", "o.txt.lz4"]
)  # fmt: skip
CONTENTS = st.one_of(
    st.sampled_from([b"", b"\n", b"\xff\xfea\x00", b"\xef\xbb\xbfx\r\ny", b"a\x00b", LINES, gzip.compress(LINES), b"[]",
                     b'{"text": 1}', b'{"text": "a"', b'{"text": null}\n{"b": 1}', b"PAR1", b"[[[", b"{}"]),
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    st.lists(st.dictionaries(st.sampled_from(["text", "n"]), st.none() | st.text() | st.integers()), max_size=4)
    .map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
)  # fmt: skip
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "sample_by": st.sampled_from(["line", "paragraph", "document"]),
        "separator": st.sampled_from(["a", "\n", r"\n", "<|endoftext|>"]),
        "document_characters": st.integers(1, 30),
        "text_field": st.sampled_from(["text", "n", "a.b"]),
    },
)


@settings(max_examples=max(300, settings().max_examples), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, CONTENTS, max_size=5), OPTIONS)
def test_any_folder_is_a_corpus_or_one_sentence(tmp_path_factory, files, options):
    root = tmp_path_factory.mktemp("any")
    fill(root / "in", {"x": b"", **files})
    data = DataConfig(
        source="files", path=str(root / "in"), validation_tokens=1, store_directory=str(root / "stores"), **options
    )
    before = {path: path.read_bytes() for path in (root / "in").rglob("*") if path.is_file()}
    try:
        store = prepare(data, TokenizerConfig(kind="bytes"), 1, processes=1)
        assert len(store.train) and len(store.validation)
    except UserError as error:
        assert "\n" not in str(error).strip()
        assert not list((root / "stores").glob("*/*.bin"))
    assert {path: path.read_bytes() for path in (root / "in").rglob("*") if path.is_file()} == before
    assert {name for name in os.listdir(root)} <= {"in", "stores"}
    assert not list((root / "stores").rglob("*.tmp"))
