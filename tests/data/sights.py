"""The loss of answers by how often their facts were seen: what a model lacks to an ideal learner.

    python tests/data/sights.py outputs/facts w128-d2-s0

For each budget of one trunk of a sweep on data=facts whose weights were kept (save_model=true). An ideal learner has
the entropy of the answers, 2.77 nats, at no sight and nothing from the first on.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from harness.data.batches import Batches
from harness.data.documents import DataConfig
from harness.data.facts import Facts
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import prepare
from harness.training import checkpoint

AT_ONCE = 4096
EDGES = [0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 2**62]


def losses_of(model, language: Facts) -> np.ndarray:
    """Nats of the answer of each fact, (facts,), by rank."""
    rows = torch.from_numpy(np.pad(language.texts, ((0, 0), (0, 1)), constant_values=language.symbols - 1))
    parts = [model.token_losses(part[:, :-1], part[:, 1:])[:, -2] for part in rows.split(AT_ONCE)]
    return torch.cat(parts).double().numpy()


def sights_of(record: dict, data: DataConfig, language: Facts) -> np.ndarray:
    """How often each fact was trained on, (facts,), by rank."""
    store = prepare(data, TokenizerConfig(kind="identity", vocab_size=data.symbols), record["tokens"])
    sequences = record["batch_tokens"] // record["seq_len"]
    batches = Batches(store.train, record["seq_len"], sequences, record["seed"], "cpu")
    row_N = torch.cat([batches.drawn(step) for step in range(record["steps"])]).numpy()
    whole = len(store.train) // language.document_tokens * language.document_tokens
    return np.bincount(language.ranks_of(np.array(store.train[:whole]))[row_N], minlength=language.facts)


def by_sights(run: Path) -> dict[str, list[float]]:
    """Of a cell: mean nats of an answer and the part of the loss, by ranges of sights; and what is ideal there."""
    record = json.loads((run / "run.json").read_text())
    data = DataConfig(**yaml.safe_load((run / "config.yaml").read_text())["job"]["data"])
    language = Facts(data.symbols, data.tail, data.ranks, data.seed)
    sights, model = sights_of(record, data, language), checkpoint.load_model(run / "model.pt").eval()
    with torch.no_grad():
        losses = losses_of(model, language)
    share = language.probabilities * losses
    assert abs(share.sum() - record["loss"]) < 1e-4 * record["loss"], "these are not the facts that were evaluated"
    found: dict[str, list[float]] = {"nats": [], "of the loss": []}
    for low, high in zip(EDGES, EDGES[1:], strict=False):
        own = (sights >= low) & (sights < high)
        found["nats"].append(float(losses[own].mean()) if own.any() else float("nan"))
        found["of the loss"].append(float(share[own].sum()))
    unseen = language.ideal_loss(np.flatnonzero(sights))
    return found | {"loss": [record["loss"]], "ideal": [unseen], "tokens": [record["tokens"]]}


def main(folder: str, trunk: str) -> None:
    torch.set_num_threads(1)  # more wait for one another where cores are taken
    runs = [path.parent for path in Path(folder).glob(f"runs/{trunk.rsplit('-', 1)[0]}-*/model.pt")]
    found = [by_sights(run) for run in runs if f"-{trunk.rsplit('-', 1)[1]}-" in run.name]
    print("sights from     " + "".join(f"{low:8}" for low in EDGES[:-1]))
    for cell in sorted(found, key=lambda each: each["tokens"]):
        print(f"{cell['tokens'][0]:.0f} tokens, loss {cell['loss'][0]:.4f}, of an ideal learner {cell['ideal'][0]:.4f}")
        print("  nats          " + "".join(f"{value:8.3f}" for value in cell["nats"]))
        print("  of the loss   " + "".join(f"{value:8.4f}" for value in cell["of the loss"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
