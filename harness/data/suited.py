"""Whether a tokenizer and sequences of that length suit a corpus that is more than running text."""

from typing import Any

from harness.data.corpus import DataConfig, facts_of, manifold_of
from harness.data.tasks import LINE_TOKENS
from harness.data.texts import texts_of
from harness.data.tokenizer import TokenizerConfig
from harness.errors import UserError


def check_suited(data: DataConfig, tokenizer: TokenizerConfig, seq_len: int, validation: Any) -> None:
    """Raises UserError where facts, points, lines or symbols are cut, told apart otherwise, or validate in part."""
    if data.source in ("facts", "manifold"):
        _check_symbols(data, tokenizer)
        if data.source == "facts":
            _check_facts(data, seq_len)
        else:
            _check_points(data, seq_len)
    _check_tasks(data, tokenizer, seq_len, validation)
    texts = {f"validation.{name}": text for name, text in texts_of(validation, data).items()}
    for label, corpus in {"data": data, **texts}.items():
        if corpus.inserted and tokenizer.kind != "bytes":
            raise UserError(
                f"{label}.inserted={corpus.inserted:g} is of symbols that tokenizer.kind={tokenizer.kind} would join "
                "with others, or has no ids for: set tokenizer=bytes"
            )


def _check_symbols(data: DataConfig, tokenizer: TokenizerConfig) -> None:
    if (tokenizer.kind, tokenizer.vocab_size) != ("identity", data.symbols):
        raise UserError(
            f"tokenizer.kind={tokenizer.kind} with tokenizer.vocab_size={tokenizer.vocab_size} takes "
            f"data.source={data.source} apart otherwise than into its {data.symbols} symbols: set tokenizer=identity"
        )


def _check_alone(document: str, tokens: int, seq_len: int) -> None:
    if seq_len != tokens:
        raise UserError(
            f"model.seq_len={seq_len} is not that of {document}, which is to be alone in its sequence: set it to "
            f"{tokens}"
        )


def _check_facts(data: DataConfig, seq_len: int) -> None:
    language = facts_of(data)
    _check_alone("a fact of data.source=facts", language.document_tokens, seq_len)
    whole = language.facts * language.document_tokens + 1
    if data.validation_tokens != whole:
        raise UserError(
            f"data.validation_tokens={data.validation_tokens} is not the {language.facts} facts of "
            f"data.ranks={data.ranks}, each once, and a target more: set it to {whole}"
        )


def _check_points(data: DataConfig, seq_len: int) -> None:
    points = manifold_of(data)
    _check_alone(f"a point of data.dimension={data.dimension}", points.document_tokens, seq_len)
    count, rest = divmod(data.validation_tokens - 1, points.point_tokens)
    if rest or not count:
        raise UserError(
            f"data.validation_tokens={data.validation_tokens} is not whole points of data.dimension={data.dimension}, "
            f"each with all its answers, and a target more: set it to {max(1, count) * points.point_tokens + 1}"
        )


def _check_tasks(data: DataConfig, tokenizer: TokenizerConfig, seq_len: int, validation: Any) -> None:
    if data.source == "tasks":
        raise UserError("data.source=tasks only validates: train on a text with data.tasks=0.3")
    names = [name for name, text in texts_of(validation, data).items() if text.source == "tasks"]
    if names and tokenizer.kind != "bytes":
        raise UserError(
            f"validation.{names[0]} is read a token a byte, not by tokenizer.kind={tokenizer.kind}: set tokenizer=bytes"
        )
    if names and seq_len % LINE_TOKENS:
        raise UserError(
            f"validation.{names[0]} has lines of {LINE_TOKENS} tokens, which model.seq_len={seq_len} would cut: "
            f"take a multiple of {LINE_TOKENS}"
        )
    if data.tasks and tokenizer.kind == "identity":
        raise UserError(
            f"data.tasks={data.tasks:g} is text, for which tokenizer.kind=identity has no ids: set it to null"
        )
