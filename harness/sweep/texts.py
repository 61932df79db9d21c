"""The further texts of a sweep: the entries of conf/ that they name, what is said of them, and cells that lack them."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from rich.console import Console

from harness import tracking
from harness.arguments import expanded, quoted
from harness.config import TrainConfig
from harness.data.documents import DataConfig
from harness.data.texts import Text, open_texts, texts_of
from harness.data.tokens import TokenStore
from harness.errors import UserError
from harness.grid import Trunk
from harness.records import SweepFolder
from harness.training.texts import cells_lacking, evaluate_kept, has_weights
from harness.units import counted

MOST_NAMES = 4


def settled_texts(base: Any) -> list[str]:
    """The override that has the texts of a composed configuration in full, so that every process reads the same.

    Within a context in which Hydra composes; raises UserError.
    """
    given = OmegaConf.to_container(base.validation, resolve=True) if OmegaConf.is_config(base.validation) else None
    if given is None and base.validation is None:
        return []
    if isinstance(given, dict):
        given = {name: _entry(name, text) if isinstance(text, str) else text for name, text in given.items()}
    texts_of(given or base.validation, DataConfig())
    assert isinstance(given, dict)
    for text in given.values():
        for key in ("path", "store_directory"):
            text |= {key: expanded(text[key])} if text.get(key) else {}
    return [f"validation={_literal(given)}"]


def _entry(name: Any, entry: str) -> dict[str, Any]:
    """The keys of an entry of conf/data that says where a text comes from."""
    entries = GlobalHydra.instance().config_loader().get_group_options("data")
    if entry not in entries:
        raise UserError(f"validation.{name}={entry} is no entry of conf/data: choose {', '.join(entries)}")
    corpus = OmegaConf.to_container(compose("train", [quoted(f"data={entry}")]).data, resolve=True)
    assert isinstance(corpus, dict)
    return {str(key): value for key, value in corpus.items() if key not in ("repeat", "store_directory")}


def _literal(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_literal(part)}" for key, part in value.items()) + "}"
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


def check_one_list(jobs: Sequence[TrainConfig]) -> None:
    """Raises UserError where the jobs of a sweep would be evaluated on different texts."""
    if any(job.validation != jobs[0].validation for job in jobs):
        raise UserError("validation differs between the jobs of the grid, which share their texts: give it one value")


def open_all(
    job: TrainConfig, store: TokenStore, trunks: Sequence[Trunk], console: Console | None = None
) -> dict[str, Text]:
    """The texts of a sweep, by name, built where they are not there yet; says which they are.

    Raises UserError for one that cannot be read, or is shorter than a sequence.
    """
    texts = open_texts(job.validation, [(job.data, store)], job.tokenizer)
    longest = max(trunk.job.model.seq_len for trunk in trunks)
    for name, text in texts.items():
        if len(text.validation) <= longest:
            raise UserError(
                f"validation.{name} has {len(text.validation)} tokens, too few for one sequence of "
                f"model.seq_len={longest} and its last target: raise validation.{name}.validation_tokens to "
                f"{longest + 1} or more"
            )
        if console is not None:
            console.print(_line(name, text, job, store), markup=False, highlight=False, soft_wrap=True)
    return texts


def _line(name: str, text: Text, job: TrainConfig, store: TokenStore) -> str:
    manifest = text.manifest
    said = (
        f"validation.{name}: {manifest['source']}, {manifest['recipe']['validation_tokens']:,} tokens to validate, "
        f"{text.bytes_per_token:.2f} bytes a token"
    )
    said += f"; skipped: {manifest['skipped']}" if "skipped" in manifest else ""
    if trained := text.trained(job.data, store):
        documents = counted(manifest["validation"]["documents"], "document")
        said += f"\nwarning: {trained} of the {documents} of validation.{name} also stand in the text that trains"
    return said


def complete(
    folder: SweepFolder,
    trunks: Sequence[Trunk],
    texts: Mapping[str, Text],
    store: TokenStore,
    console: Console,
    here: bool = True,
) -> None:
    """Evaluates the finished cells that lack a text from their kept weights, if this machine may, and names the others.

    Raises Stopped.
    """
    recipes = {name: text.recipe_hash for name, text in texts.items()}
    found = cells_lacking(trunks, recipes, folder) if texts else []
    done, wrong = [], [cell.name for _, cell in found if not has_weights(cell, folder)]
    for trunk, cell in found if here else []:
        if cell.name in wrong:
            continue
        try:
            if evaluate_kept(trunk, cell, texts, store, folder):
                done.append(cell.name)
        except UserError as error:
            _say(console, str(error))
    if done:
        tracking.start(trunks[0].job.tracking, folder.path, done).close()
        names = ", ".join(texts)
        _say(console, f"{counted(len(done), 'cell')} of before: evaluated on {names} from their kept weights")
    if wrong:
        shown = ", ".join(wrong[:MOST_NAMES]) + f" and {len(wrong) - MOST_NAMES} more" * (len(wrong) > MOST_NAMES)
        _say(console, f"no loss on every text of validation= for {shown}: finished before, without save_model=true")
    elif found and not here:
        _say(console, f"{counted(len(found), 'cell')} of before: not evaluated on every text of validation= yet; the "
             "same command without the cluster's launcher does it from their kept weights")  # fmt: skip


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
