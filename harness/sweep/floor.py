"""The loss that no model of a sweep can beat, where its text is of a known entropy, and how it comes near."""

from collections.abc import Sequence

from harness.config import TrainConfig
from harness.data.corpus import facts_of, language_of, manifold_of
from harness.data.insertion import inserted_nats
from harness.data.tokens import TokenStore, recipe_of
from harness.sweep.corpora import several, shares_apart, tasks_apart
from harness.training.stores import Stores, store_of


def known_floor(jobs: Sequence[TrainConfig], stores: TokenStore | Stores) -> dict[str, float] | None:
    """Nats a token of the best predictor: of the very tokens that every cell is evaluated on, and of endless text.

    Of facts the loss is of answers, which the best predictor knows, and beside it stands the exponent by which that of
    an ideal learner falls in tokens. None where the text is another one, its symbols are no ids, or not all cells are
    evaluated on the same.
    """
    first = jobs[0]
    if first.data.source == "manifold":
        return floor_of_points(first) if len(tasks_apart(jobs)) == 1 else None
    if first.data.source == "facts" and not several(jobs):
        return {"nats": 0.0, "expected": 0.0, "exponent": facts_of(first.data).exponent}
    ids = (first.tokenizer.kind, first.tokenizer.vocab_size)
    if first.data.source != "synthetic" or ids != ("identity", first.data.symbols):
        return None
    if several(jobs) or len({job.model.seq_len for job in jobs}) > 1:
        return None
    language, evaluated = language_of(first.data), store_of(stores, first).evaluated(first.model.seq_len)
    return {"nats": language.loss(evaluated), "expected": language.entropy()}


def floor_of_points(job: TrainConfig) -> dict[str, float]:
    """The mean entropy of the answers at the very points that validate, and at as many that train; an exponent beside.

    The exponent is that of the params by which the squared error of a piecewise linear function falls.
    """
    task = manifold_of(job.data)
    points = task.points_aside(job.data.validation_tokens)
    return {"nats": task.entropy(points), "expected": task.expected_entropy, "exponent": task.exponent}


def floors_by_dimension(jobs: Sequence[TrainConfig]) -> dict[int, dict[str, float]]:
    """Those of data=manifold in several dimensions; empty where the jobs have one, or another text."""
    apart = tasks_apart(jobs)
    return {dimension: floor_of_points(job) for dimension, job in apart.items()} if len(apart) > 1 else {}


def inserted_by_corpus(jobs: Sequence[TrainConfig]) -> dict[str, dict[str, float]]:
    """Of a text with several shares of symbols: each share, and the nats a token that they add beside (1 - share) of
    the text's own entropy, by the corpus as the run table names it; empty where the jobs have one share."""
    apart = shares_apart(jobs)
    if len(apart) < 2:
        return {}
    hashes = {share: recipe_of(job.data, job.tokenizer)[1] for share, job in apart.items()}
    return {hashes[share]: {"share": share, "nats": inserted_nats(share)} for share in sorted(apart)}
