"""A dataset of the hub, streamed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.documents import NOTHING_READ, START, Changed, DataConfig, Document, Place, digest_of, quiet_datasets
from harness.data.reading import value_of
from harness.errors import UserError

# A stream's validation documents come from the 26 of 256 values of a hash's first byte: about a tenth.
STREAM_ASIDE = 26 << 56
HUB_TIMEOUT_SECONDS = 5.0
OFFLINE_ENTRIES = "data=sotu or data=files data.path=..."


class StreamedCorpus:
    """Documents of a hub dataset in its own order; about a tenth of them, by their hashes, is aside."""

    duplicates = 0
    skipped = note = ""
    documents: int | None = None
    aside_share = "a tenth"

    def __init__(self, data: DataConfig, revision: str, cache: Path) -> None:
        self.data = data
        self.cache = cache
        self.revision: str | None = revision

    def aside(self) -> Iterator[Document]:
        return (document for document in self.training() if document.aside)

    def beside(self, validating: np.ndarray) -> np.ndarray:
        return NOTHING_READ

    def training(self, read: np.ndarray = NOTHING_READ, place: Place = START) -> Iterator[Document]:
        field = self.data.text_field
        number = place.documents
        for shard, row, example in self._examples(place.shard):
            if row == 1:
                here = Place(shard, number)
            text = value_of(example, field)
            if text is None:
                continue
            if not isinstance(text, str):
                raise UserError(
                    f"data.text_field={field} holds no text in row {row} of part {shard + 1} of {self.data.name}: "
                    f"choose one of {', '.join(sorted(example))}"
                )
            if not text.strip():
                continue
            digest = digest_of(text)
            if number >= len(read):
                yield Document(text, digest, digest < STREAM_ASIDE, here)
            elif digest != read[number]:
                raise Changed
            number += 1
        if number < len(read):
            raise Changed

    def _examples(self, first_shard: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Shard, row of the shard (the first is 1) and example, from the start of `first_shard` on."""
        with quiet_datasets():
            stream = self._stream()
            for shard in range(first_shard, stream.num_shards):
                try:
                    examples = stream.shard(num_shards=stream.num_shards, index=shard)
                    for row, example in enumerate(examples, start=1):
                        yield shard, row, example
                except Exception as error:  # of the network or of the file: each library of the chain has its own
                    raise UserError(
                        f"data.name={self.data.name} breaks off in part {shard + 1} of {stream.num_shards} "
                        f"({_reason(error)}): connect again, or where that file is damaged choose another "
                        "data.revision; the same command goes on from what is stored"
                    ) from error

    def _stream(self) -> Any:
        import datasets

        data = self.data
        try:
            return datasets.load_dataset(
                data.name,
                data.config,
                split=data.split,
                revision=self.revision,
                streaming=True,
                cache_dir=str(self.cache),
            )
        except (ValueError, RuntimeError, FileNotFoundError) as error:  # config, split, script, no data
            raise UserError(
                f"data.name={data.name} data.config={data.config} data.split={data.split} cannot be read: "
                f"{_reason(error)}"
            ) from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip()


def resolve_revision(data: DataConfig, revision: str | None) -> str:
    """The commit behind the dataset's revision: one short request, so that a hub out of reach is told at once."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    wanted = revision or data.revision
    try:
        info = huggingface_hub.HfApi().dataset_info(str(data.name), revision=wanted, timeout=HUB_TIMEOUT_SECONDS)
    except HfHubHTTPError as error:
        raise UserError(
            f"data.name={data.name}{f' data.revision={wanted}' if wanted else ''} is not on the hub or not open to you "
            f"(HTTP {error.response.status_code}): check the names, or log in by `hf auth login`"
        ) from error
    except Exception as error:  # its network library has changed twice; whatever it raises, no answer came
        raise UserError(
            f"data.name={data.name} needs the hub, and {huggingface_hub.constants.ENDPOINT} cannot be reached "
            f"({type(error).__name__}): connect, or take an offline corpus, {OFFLINE_ENTRIES}"
        ) from error
    assert info.sha
    return info.sha
