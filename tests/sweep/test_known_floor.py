"""The floor of a sweep on a synthetic language."""

import numpy as np
import pytest

from harness.data.language import Language
from harness.sweep.compose import compose_sweep, open_stores
from harness.sweep.floor import known_floor


def floor_of(tmp_path, *overrides):
    here = [f"data.store_directory={tmp_path}", f"output_directory={tmp_path}", "tracking=none", "tokens=1000"]
    small = ["data.symbols=512", "data.validation_tokens=5000"]
    jobs = compose_sweep([*here, "data=synthetic", *small, "model.width=32", *overrides]).jobs
    stores = open_stores(jobs)
    return jobs, stores, known_floor(jobs, stores)


def test_it_is_of_the_very_tokens_that_validate(tmp_path):
    jobs, stores, floor = floor_of(tmp_path)
    assert jobs[0].tokenizer.vocab_size == 512  # as many ids as symbols
    # 5000 tokens fill 40 sequences of 128
    tokens = np.fromfile(next(tmp_path.glob("*/validation.bin")), np.uint16)[: 40 * 128 + 1].astype(int)
    language = Language(symbols=512, tail=2.5, seed=0)
    one_by_one = [
        float(language.nats(np.array([before]), np.array([after]))[0])
        for before, after in zip(tokens, tokens[1:], strict=False)
    ]
    assert floor["nats"] == pytest.approx(sum(one_by_one) / 5120, abs=1e-9)
    assert floor["expected"] == language.entropy()


def test_other_ids_have_another_floor(tmp_path):
    assert floor_of(tmp_path, "tokenizer=bytes")[2] is None
    assert floor_of(tmp_path, "tokenizer.vocab_size=600")[2] is None


def test_lengths_that_differ_have_no_floor_in_common(tmp_path):
    assert floor_of(tmp_path, "-m", "model.seq_len=64,128")[2] is None


@pytest.mark.parametrize("name", ["floor", "facts", "manifold"])
def test_a_gpu_grid_has_as_many_ids_as_its_language(name):
    """Else it would end without a floor."""
    for job in compose_sweep(["-m", f"+sweep={name}", "+size=gpu", "tracking=none"]).jobs:
        assert (job.tokenizer.kind, job.tokenizer.vocab_size) == ("identity", job.data.symbols)
