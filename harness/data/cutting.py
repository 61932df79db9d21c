"""Cutting texts into documents, and the marks by which others have joined documents into one text."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# What ends or begins a document in the text formats of known tokenizers.
MARKERS = re.compile(r"<\|[A-Za-z_]{3,30}\|>|</?s>|<eos>|<bos>|\[EOS\]|\[BOS\]|<EOS>|<BOS>")
# A marker is told of from so many on, where a tenth of the documents has it.
FEWEST_MARKERS = 10


class Cut(NamedTuple):
    """A document, None where there is no text; continues: it is a piece that goes on with the text before it."""

    text: str | None
    continues: bool = False


def cut(texts: Iterable[str | None], separator: str | None, characters: int | None) -> Iterator[Cut]:
    """Each text cut where `separator` stands, then into pieces of at most so many characters; None stays."""
    for text in texts:
        if text is None or not (separator or characters):
            yield Cut(text)
            continue
        for part in [part.strip("\r\n") for part in text.split(separator)] if separator else [text]:
            if part.strip():
                pieces = sized(part, characters) if characters else [part]
                yield from (Cut(piece, number > 0) for number, piece in enumerate(pieces))


def sized(text: str, characters: int) -> Iterator[str]:
    """Pieces that make up `text`, cut behind the last space of their second half where there is one."""
    start = 0
    while len(text) - start > characters:
        end = start + characters
        spaces = SPACE.search(text[start + characters // 2 : end][::-1])
        end -= spaces.start() if spaces else 0
        yield text[start:end]
        start = end
    yield text[start:]


SPACE = re.compile(r"\s")


def marker_of(texts: list[str]) -> tuple[str, int] | None:
    """The marker that stands in most of the texts, and in how many, where it is as good as surely one."""
    counts, holders = Counter[str](), Counter[str]()
    for text in texts:
        found = Counter(MARKERS.findall(text))
        counts += found
        holders.update(found.keys())
    for marker, held in holders.most_common(1):
        if counts[marker] >= FEWEST_MARKERS and 10 * held >= len(texts):
            return marker, held
    return None


def way_to_cut(text: str, kind: str) -> str | None:
    """The override that makes several documents of a text of a file of that kind; None where there is none."""
    if marker := marker_of([text]):
        return in_shell("separator", marker[0])
    for sample_by, separator in (("paragraph", "\n\n"), ("line", "\n")):
        if len({part for part in text.split(separator) if part.strip()}) > 1:
            by = {"text": f"data.sample_by={sample_by}"}
            return by.get(kind, in_shell("separator", separator.replace("\n", "\\n")))
    return "data.document_characters=5000" if len(text) >= 10_000 else None


def in_shell(key: str, value: str) -> str:
    """data.KEY=VALUE quoted for Hydra and a shell."""
    return f"""data.{key}='"{value}"'"""
