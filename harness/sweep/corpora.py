"""Several corpora in one sweep: what they must share for their losses to be compared."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.config import TrainConfig
from harness.data.documents import DataConfig
from harness.data.tokens import TokenStore, recipe_of
from harness.errors import UserError
from harness.training.stores import Stores, key_of, store_of


def check_corpora(jobs: Sequence[TrainConfig]) -> None:
    """Raises UserError where the jobs of a sweep have no tokenizer or no text to validate on in common."""
    first = jobs[0]
    recipes = {repr((job.tokenizer.recipe(), job.tokenizer.data)): job.tokenizer.recipe() for job in jobs}
    if len(recipes) > 1:
        kinds = dict.fromkeys(str(recipe.get("encoding", recipe["kind"])) for recipe in recipes.values())
        raise UserError(
            f"tokenizer differs within the grid ({', '.join(kinds)}; an entry of conf/data may bring its own), and "
            "losses by token of two tokenizers cannot be compared: give it one value, as in tokenizer=bytes, or train "
            "one sweep for each and compare them in bits by `python scripts/compare.py runs=outputs/ONE,outputs/TWO "
            "columns.target=bits_per_byte`"
        )
    if not several(jobs):
        return
    if first.validation is None:
        raise UserError(
            "data differs within the grid, and losses on different texts cannot be compared: name the text that all "
            "are evaluated on, as in 'validation={stories: tinystories}'; its first is the column loss"
        )
    if first.tokenizer.kind == "bpe" and first.tokenizer.data is None:
        raise UserError(
            "data differs within the grid, and each corpus would train a BPE of its own: name the corpus of one for "
            "all, as in tokenizer.data=tinystories, or take tokenizer=bytes"
        )


def corpora_of(jobs: Sequence[TrainConfig], stores: TokenStore | Stores) -> list[tuple[DataConfig, TokenStore]]:
    """What the jobs of a sweep train on, each corpus once, and its store."""
    return [(job.data, store_of(stores, job)) for job in {key_of(job): job for job in jobs}.values()]


def several(jobs: Sequence[TrainConfig]) -> bool:
    """Whether the jobs of a sweep train on, or validate on, different corpora; raises UserError.

    Points of several dimensions are tasks apart, each with a floor of its own, whose losses nobody compares; so is a
    text with other shares of symbols inserted.
    """
    if len(tasks_apart(jobs)) > 1 or len(shares_apart(jobs)) > 1:
        return False
    found = {key_of(job): job for job in jobs}.values()
    return len(found) > 1 and len({recipe_of(job.data, job.tokenizer)[1] for job in found}) > 1


def tasks_apart(jobs: Sequence[TrainConfig]) -> dict[int, TrainConfig]:
    """A job of each dimension of data=manifold, where all train on that and nothing else of it differs; else empty."""
    alike = {repr(replace(job.data, dimension=1, validation_tokens=1)) for job in jobs}
    if len(alike) > 1 or jobs[0].data.source != "manifold":
        return {}
    return {job.data.dimension: job for job in jobs}


def shares_apart(jobs: Sequence[TrainConfig]) -> dict[float, TrainConfig]:
    """A job of each share of symbols that are inserted, where nothing else of the corpus differs; else empty."""
    if len({repr(replace(job.data, inserted=None)) for job in jobs}) > 1:
        return {}
    return {job.data.inserted or 0.0: job for job in jobs}


def check_tokenizers(stores: Iterable[TokenStore]) -> None:
    """Raises UserError where the stores of a sweep were encoded by different tokenizers."""
    found = list(stores)
    if len({store.manifest["tokenizer_hash"] for store in found}) > 1:
        raise UserError(
            "the corpora of the grid were encoded by different tokenizers, since tokenizer.data is no longer what it "
            f"was: delete the token stores {', '.join(store.recipe_hash for store in found)}, and they are built again"
        )
