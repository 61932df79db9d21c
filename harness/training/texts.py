"""Losses on further texts: of a model that has just been trained, and of one whose weights were kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.data.texts import Text
from harness.data.tokens import TokenStore
from harness.grid import Cell, Trunk
from harness.model.make import Model
from harness.records import COLUMNS, TEXTS, SweepFolder, lacking, read_record, write_record
from harness.training import checkpoint
from harness.training.answers import evaluate_answers
from harness.training.claim import claimed
from harness.training.device import Device, configure_process
from harness.training.evaluation import evaluate
from harness.training.gpus import devices_of

Losses = dict[str, dict[str, Any]]


def evaluate_texts(model: Model, texts: Mapping[str, Text], device: Device) -> Losses:
    """What a record holds of each text, by its name; raises Stopped between two batches."""
    seq_len, found = model.config.seq_len, Losses()
    for name, text in texts.items():
        tokens = text.evaluated(seq_len)
        if text.task is None:
            columns = evaluate(model, tokens, seq_len, text.bytes_per_token, device).columns()
        else:
            columns = evaluate_answers(model, tokens, seq_len, text.task, device).columns()
        found[name] = {"recipe": text.recipe_hash, **columns}
        device.release()
    return found


def cells_lacking(trunks: Sequence[Trunk], recipes: Mapping[str, str], folder: SweepFolder) -> list[tuple[Trunk, Cell]]:
    """The finished cells that have no loss on some text of `recipes`."""
    records = [(trunk, cell, read_record(folder.run(cell.name))) for trunk in trunks for cell in trunk.cells]
    return [(trunk, cell) for trunk, cell, record in records
            if record and record["status"] == "finished" and lacking(record, recipes)]  # fmt: skip


def has_weights(cell: Cell, folder: SweepFolder) -> bool:
    return (folder.run(cell.name) / "model.pt").exists()


def evaluate_kept(trunk: Trunk, cell: Cell, texts: Mapping[str, Text], store: TokenStore, folder: SweepFolder) -> bool:
    """Adds to the record of a finished cell its losses on the texts that it lacks; False where another process has it.

    Raises UserError where its weights are damaged, and Stopped between two batches.
    """
    run, recipes = folder.run(cell.name), {name: text.recipe_hash for name, text in texts.items()}
    with claimed(run) as mine:
        record = read_record(run)
        if not mine or record is None:
            return False
        with devices_of(trunk.job, [trunk], store.train.nbytes) as (device, *_):
            configure_process(trunk.job, device)
            model = checkpoint.load_model(run / "model.pt").to(device.torch_device)
            losses = evaluate_texts(model, {name: texts[name] for name in lacking(record, recipes)}, device)
        known = {key: record[key] for key in COLUMNS}
        write_record(run, known | {TEXTS: (record.get(TEXTS) or {}) | losses})
    return True
