"""Plans for machines that are not here, and what the grid of a GPU box is by them."""

import numpy as np
import pytest

from harness.accounting import count_params
from harness.errors import UserError
from harness.laws.design import expect
from harness.sweep.candidates import LEAST_STEPS
from harness.sweep.compose import compose_sweep
from harness.sweep.machines import MACHINES, plan_elsewhere, vocabulary
from harness.sweep.propose import standard_errors


def planned(sweep: str, machine: str, *more: str):
    return plan_elsewhere(compose_sweep(["-m", f"+sweep={sweep}", "tracking=none", *more]), machine)


@pytest.mark.parametrize(
    ("machine", "milliseconds"),
    # of a step of w768-d12, w512-d8 and w256-d4 by a model that counts their kernels and bytes one by one
    [("h100", (83, 40, 17)), ("a100", (185, 86, 34)), ("4090", (317, 148, 60)), ("3090", (570, 255, 94))],
)
def test_a_step_lasts_as_long_as_a_finer_model_says(machine, milliseconds):
    plan, _ = planned("gpu-large", machine, "shape=w768-d12,w512-d8,w256-d4")
    found = [1000 * plan.pace[trunk.name].step for trunk in plan.trunks]
    assert found == pytest.approx(milliseconds, rel=0.2)


def test_a_step_of_a_small_model_is_its_launches():
    # 57 + 2 * 40 launches of 7 us and .8 ms
    plan, _ = planned("cpu", "h100", "shape=w48-d2")
    assert plan.pace[plan.trunks[0].name].step == pytest.approx(0.8e-3 + 137 * 7e-6)


def test_the_grid_of_a_gpu_box_is_half_an_hour_and_tells_a():
    plan, lines = planned("gpu", "4090")
    assert 25 * 60 < plan.wall_seconds < 40 * 60
    assert planned("gpu", "h100")[0].wall_seconds < 15 * 60
    assert lines[0].startswith("estimated for one RTX 4090, of which nothing was measured: a job takes up to ")
    assert lines[1] == "reads about 648 MB of text from the hub"
    job = plan.trunks[0].job
    assert job.data.validation_tokens >= 2e6 and 8e3 <= vocabulary(job) <= 16e3
    cells = [
        (trunk.params.with_head, cell.tokens, index) for index, trunk in enumerate(plan.trunks) for cell in trunk.cells
    ]
    params_R, tokens_R, trunk_R = (np.array(values) for values in zip(*cells, strict=True))
    assert len(set(params_R)) >= 6 and params_R.max() >= 30 * params_R.min()
    assert tokens_R.max() >= 7.9 * tokens_R.min()
    assert len(plan.trunks) == 8  # second seeds at two shapes
    assert min(cell.steps for trunk in plan.trunks for cell in trunk.cells) >= LEAST_STEPS
    found = expect(params_R.astype(float), tokens_R.astype(float), trunk_R)
    assert standard_errors(found)["a"] <= 0.02


def test_no_corpus_and_no_encoding_is_opened(monkeypatch):
    monkeypatch.setattr("harness.sweep.compose.prepare", lambda *given: pytest.fail("a corpus was opened"))
    for tokenizer, ids in (("gpt2", 50257), ("cl100k_base", 100277), ("o200k_base", 200019), ("bytes", 257)):
        plan, _ = planned("gpu", "h100", f"tokenizer={tokenizer}")
        trunk = plan.trunks[0]
        assert trunk.vocab_size == ids
        assert trunk.params == count_params(trunk.job.model, ids)


def test_an_apple_gpu_is_not_taken_for_a_fast_one():
    plan, _ = planned("cpu", "mps", "shape=w48-d2")
    assert plan.device == "mps" and plan.pace[plan.trunks[0].name].step == pytest.approx(0.8e-3 + 4 * 137 * 30e-6)


@pytest.mark.parametrize(
    ("machine", "more", "said"),
    [
        ("v100", [], f"machine=v100 is not known: choose {', '.join(MACHINES)}, or plan"),
        ("4090", ["shape=w8192-d32"], "model.width=8192, model.depth=32, .* GiB to train and this GPU has 22.4: make"),
        ("4090", ["tokenizer=gpt2", "tokenizer.encoding=p50k_base"], "tokenizer.encoding=p50k_base has a vocabulary"),
    ],
)
def test_what_cannot_be_planned_is_refused(machine, more, said):
    with pytest.raises(UserError, match=said):
        planned("gpu", machine, *more)
