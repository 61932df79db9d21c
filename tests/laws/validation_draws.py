"""How far exponents move with the text that validates: refits on draws of unseen documents, beside jackknives.

    python scripts/train.py -m +sweep=cpu name=passages save_model=true
    python scripts/train.py -m +sweep=cpu name=speeches save_model=true data.document_characters=null
    python tests/laws/validation_draws.py outputs/passages 300
    python tests/laws/validation_draws.py outputs/speeches 12

gives, for as many documents as validate, the standard deviation of the refitted exponents over disjoint draws of
documents that no cell has read, and what jackknives over ten parts and over documents say of the text that validates.
The cells of the largest budget are left out: what they have not read is too little to draw from.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from harness.data.corpus import DataConfig
from harness.data.tokenizer import TokenizerConfig
from harness.data.tokens import WINDOW_TOKENS, TokenStore, prepare
from harness.laws import fit
from harness.laws.fit import Fit
from harness.laws.noise import intervals as ci
from harness.training import checkpoint

SHOWN, SHUFFLES, PARTS, AT_ONCE = ("alpha", "beta", "gamma", "a", "E"), 40, 10, 32


def store_of(job: dict) -> TokenStore:
    data, tokenizer = DataConfig(**job["data"]), TokenizerConfig(**job["tokenizer"])
    return prepare(data, tokenizer, int(max(job["tokens"])))


def losses(model: Path, tokens: np.ndarray, seq_len: int) -> np.ndarray:
    """Mean nats a token of each sequence."""
    count = (len(tokens) - 1) // seq_len
    ids = torch.from_numpy(tokens[: count * seq_len + 1].astype(np.int64))
    inputs, targets = ids[:-1].view(count, seq_len), ids[1:].view(count, seq_len)
    loaded = checkpoint.load_model(model).eval()
    with torch.no_grad():
        parts = [loaded.sequence_losses(inputs[i : i + AT_ONCE], targets[i : i + AT_ONCE])
                 for i in range(0, count, AT_ONCE)]  # fmt: skip
    return torch.cat(parts).numpy()


def documents(tokens: np.ndarray, end: int, seq_len: int, first: int) -> np.ndarray:
    """The number of the document that the middle of each sequence lies in, from `first` on."""
    number = first + np.concatenate([[0], np.cumsum(tokens == end)[:-1]])
    return number[seq_len // 2 : (len(tokens) - 1) // seq_len * seq_len : seq_len]


def refits(found: Fit, loss_RS: np.ndarray, groups: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The law refitted to the mean loss over each group of sequences."""
    mean_R = loss_RS.mean(1)
    targets = np.array([loss_RS[:, group].mean(1) for group in groups]) / mean_R * found.problem.target
    drawn = ci.refit(found.problem, found.theta_P, iter([(targets, np.zeros(len(groups)))]))
    natural = found.at(drawn.theta_SP)
    return {name: natural[name] for name in SHOWN}


def jackknife(found: Fit, loss_RS: np.ndarray, groups: list[np.ndarray]) -> dict[str, float]:
    """Standard errors by deleting a group at a time."""
    without = [np.concatenate(groups[:k] + groups[k + 1 :]) for k in range(len(groups))]
    share = (len(groups) - 1) / len(groups)
    return {name: float(np.sqrt(share * ((value - value.mean()) ** 2).sum()))
            for name, value in refits(found, loss_RS, without).items()}  # fmt: skip


def over_draws(found: Fit, loss_RS: np.ndarray, units: list[np.ndarray], size: int) -> dict[str, float]:
    """The standard deviation over disjoint draws of `size` documents."""
    generator, variances = np.random.default_rng(0), {name: [] for name in SHOWN}
    for _ in range(SHUFFLES):
        order = generator.permutation(len(units))
        draws = [order[start : start + size] for start in range(0, len(units) - size + 1, size)]
        drawn = refits(found, loss_RS, [np.concatenate([units[i] for i in draw]) for draw in draws])
        for name, value in drawn.items():
            variances[name].append(value.var(ddof=1))
    return {name: float(np.sqrt(np.mean(value))) for name, value in variances.items()}


def main(folder: Path, size: int) -> None:
    torch.set_num_threads(1)
    rows = pd.read_csv(folder / "runs.csv")
    budgets = np.sort(rows.tokens.unique())
    rows = rows[rows.tokens < budgets[-1] * 0.9].reset_index(drop=True)
    job = yaml.safe_load((folder / "runs" / rows.cell[0] / "config.yaml").read_text())["job"]
    store, seq_len = store_of(job), job["model"]["seq_len"]
    unseen = -(-int(rows.tokens.max()) // WINDOW_TOKENS) * WINDOW_TOKENS  # rows are shuffled within windows
    splits, end = [np.array(store.validation), np.array(store.train[unseen:])], store.end_of_text
    numbers = [documents(split, end, seq_len, first) for split, first in zip(splits, (0, 10**6), strict=True)]
    of_S = np.concatenate(numbers)
    models = [folder / "runs" / cell / "model.pt" for cell in rows.cell]
    loss_RS = np.array([np.concatenate([losses(model, split, seq_len) for split in splits]) for model in models])
    table = rows.assign(loss=loss_RS.mean(1)).drop(columns=["loss_se", "loss_parts"])
    found = fit(table, law=job["law"], bootstrap=200)
    units = [np.flatnonzero(of_S == document) for document in dict.fromkeys(of_S)]
    validating = [unit for unit in units if unit[0] < len(numbers[0])]
    parts = np.array_split(np.concatenate(validating), PARTS)
    print(f"{len(rows)} cells; {len(validating)} documents validate, {len(units) - len(validating)} more are unseen")
    for words, spread in (
        (f"{len(units) // size} draws of {size}", over_draws(found, loss_RS, units, size)),
        (f"jackknife, {PARTS} parts", jackknife(found, loss_RS, parts)),
        (f"jackknife, {len(validating)} documents", jackknife(found, loss_RS, validating)),
    ):
        print(f"{words:28}" + "  ".join(f"{name} {value:.3f}" for name, value in spread.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
