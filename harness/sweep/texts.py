"""The further texts of a sweep: the entries of conf/ that they name, what is said of them, and cells that lack them."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from rich.console import Console

from harness import tracking
from harness.arguments import expanded, literal, quoted
from harness.config import TrainConfig
from harness.data.documents import KEYS, DataConfig, data_config
from harness.data.texts import Corpora, Text, open_texts, texts_of
from harness.data.tokens import TokenStore
from harness.errors import UserError
from harness.grid import Trunk
from harness.records import SweepFolder
from harness.training.stores import Stores, store_of
from harness.training.texts import cells_lacking, evaluate_kept, has_weights
from harness.units import counted

MOST_NAMES = 4


def settled_corpora(base: Any, axes: Sequence[str]) -> list[str]:
    """Overrides that have the texts, and the corpus of the tokenizer, of a composed configuration in full.

    Every process of a sweep reads these. axes: the keys of the sweep that have several values. Within a context in
    which Hydra composes; raises UserError.
    """
    for key in ("validation", "tokenizer.data"):
        if key in axes:
            raise UserError(f"{key} is the same for all cells of a sweep, and has several values: give it one")
    lines = []
    if (texts := _plain(base.validation)) is not None:
        if isinstance(texts, dict):
            texts = {name: _in_full(f"validation.{name}", text) for name, text in texts.items()}
        texts_of(texts, DataConfig())
        lines.append(f"validation={_literal(texts)}")
    if (given := _plain(base.tokenizer.data)) is not None:
        given = _in_full("tokenizer.data", given)
        data_config("tokenizer.data", given, DataConfig())
        lines.append(f"tokenizer.data={_literal(given)}")
    return lines


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _in_full(label: str, given: Any) -> Any:
    """The keys of a corpus that may be given as an entry of conf/data."""
    if isinstance(given, str):
        entries = GlobalHydra.instance().config_loader().get_group_options("data")
        if given not in entries:
            raise UserError(f"{label}={given} is no entry of conf/data: choose {', '.join(entries)}")
        corpus = OmegaConf.to_container(compose("train", [quoted(f"data={given}")]).data, resolve=True)
        assert isinstance(corpus, dict)
        return {str(key): value for key, value in corpus.items() if key in KEYS and key != "store_directory"}
    if not isinstance(given, dict):
        return given
    paths = {key: expanded(given[key]) for key in ("path", "store_directory") if isinstance(given.get(key), str)}
    return given | paths


def _literal(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_literal(part)}" for key, part in value.items()) + "}"
    return literal(value) if isinstance(value, str) else "null" if value is None else str(value)


def open_all(
    job: TrainConfig, corpora: Corpora, trunks: Sequence[Trunk], console: Console | None = None
) -> dict[str, Text]:
    """The texts of a sweep, by name, built where they are not there yet; says which they are.

    Raises UserError for one that cannot be read, or is shorter than a sequence.
    """
    texts = open_texts(job.validation, corpora, job.tokenizer)
    longest = max(trunk.job.model.seq_len for trunk in trunks)
    for name, text in texts.items():
        if len(text.validation) <= longest:
            raise UserError(
                f"validation.{name} has {len(text.validation)} tokens, too few for one sequence of "
                f"model.seq_len={longest} and its last target: raise validation.{name}.validation_tokens to "
                f"{longest + 1} or more"
            )
        if console is not None:
            console.print(_line(name, text, corpora), markup=False, highlight=False, soft_wrap=True)
    return texts


def _line(name: str, text: Text, corpora: Corpora) -> str:
    manifest = text.manifest
    said = (
        f"validation.{name}: {manifest['source']}, {manifest['recipe']['validation_tokens']:,} tokens to validate, "
        f"{text.bytes_per_token:.2f} bytes a token"
    )
    said += f"; skipped: {manifest['skipped']}" if "skipped" in manifest else ""
    if trained := max(text.trained(data, store) for data, store in corpora):
        documents = counted(manifest["validation"]["documents"], "document")
        said += f"\nwarning: {trained} of the {documents} of validation.{name} also stand in the text that trains"
    return said


def stated_tasks(texts: Mapping[str, Text]) -> dict[str, dict[str, Any]]:
    """What sweep.yaml says of the texts that are lines of a task, by name."""
    tasks = {name: text.task for name, text in texts.items() if text.task is not None}
    return {
        name: {"task": task.name, "tokens": task.answer_tokens, "symbols": task.symbols} for name, task in tasks.items()
    }


def check_compared(folder: SweepFolder, trunks: Sequence[Trunk], texts: Mapping[str, Text]) -> None:
    """Raises UserError where cells have finished that can have no loss on the text that corpora are compared on."""
    name, text = next(iter(texts.items()))
    found = cells_lacking(trunks, {name: text.recipe_hash}, folder)
    if lost := [cell.name for _, cell in found if not has_weights(cell, folder)]:
        raise UserError(
            f"validation.{name} is the text that the corpora of {folder.path} are compared on, and {len(lost)} of its "
            f"finished cells, {lost[0]} first, have neither a loss on it nor weights that were kept: name the text "
            f"that they were compared on first, or give this grid a name of its own, as in name={folder.path.name}-2"
        )


def complete(
    folder: SweepFolder,
    trunks: Sequence[Trunk],
    texts: Mapping[str, Text],
    stores: TokenStore | Stores,
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
            if evaluate_kept(trunk, cell, texts, store_of(stores, trunk.job), folder):
                done.append(cell.name)
        except UserError as error:
            _say(console, str(error))
    if done:
        tracking.start(trunks[0].job.tracking, folder.path, done).close()
        names = ", ".join(texts)
        _say(console, f"{counted(len(done), 'cell')} that had finished: evaluated on {names} from their kept weights")
    if wrong:
        shown = ", ".join(wrong[:MOST_NAMES]) + f" and {len(wrong) - MOST_NAMES} more" * (len(wrong) > MOST_NAMES)
        _say(console, f"no loss on every text of validation= for {shown}: finished before, without save_model=true")
    elif found and not here:
        said = f"{counted(len(found), 'cell')} that had finished: not evaluated on every text of validation= yet"
        _say(console, f"{said}; the same command without the cluster's launcher does it from their kept weights")


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
