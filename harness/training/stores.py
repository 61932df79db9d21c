"""The token stores of a sweep whose jobs train on several corpora."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.config import TrainConfig
from harness.data.tokens import TokenStore


@dataclass(frozen=True)
class Stores:
    """by_corpus: the store of each corpus, by its key."""

    by_corpus: Mapping[str, TokenStore]


def key_of(job: TrainConfig) -> str:
    """What a job's store is prepared from."""
    return repr((job.data, job.tokenizer))


def store_of(stores: TokenStore | Stores, job: TrainConfig) -> TokenStore:
    """The one that a job trains on."""
    return stores.by_corpus[key_of(job)] if isinstance(stores, Stores) else stores
