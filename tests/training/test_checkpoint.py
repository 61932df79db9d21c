import pytest
import torch

from harness.errors import UserError
from harness.model.config import ModelConfig
from harness.model.gpt import GPT
from harness.model.parameters import initialize
from harness.training.checkpoint import TrunkCheckpoints, load, load_model, save, save_model

CPU = torch.device("cpu")


def test_what_is_saved_comes_back(tmp_path):
    save(tmp_path / "a.pt", {"step": 3, "w": torch.tensor([1.5, -2.0])})
    state = load(tmp_path / "a.pt")
    assert state["step"] == 3
    assert state["w"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damage_is_found(tmp_path, damage):
    path = tmp_path / "a.pt"
    save(path, {"w": torch.zeros(100)})
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[:-10]
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    else:
        content = bytearray()
    path.write_bytes(content)
    assert load(path) is None


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    checkpoints = TrunkCheckpoints(tmp_path, branch_steps=set())
    checkpoints.save(10, {"step": 10})
    checkpoints.save(20, {"step": 20})
    (tmp_path / "step-20.pt").write_bytes(b"torn")
    assert checkpoints.load_up_to(100) == {"step": 10}
    assert checkpoints.load_up_to(9) is None


def test_branches_stay_and_of_the_others_the_last_two(tmp_path):
    checkpoints = TrunkCheckpoints(tmp_path, branch_steps={20})
    for step in (10, 20, 30, 40, 50):
        checkpoints.save(step, {"step": step})
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step-20.pt", "step-40.pt", "step-50.pt"]


def test_a_kept_model_gives_the_same_logits(tmp_path):
    model = GPT(ModelConfig(width=32, depth=2, seq_len=16), vocab_size=50)
    initialize(model, seed=7)
    save_model(tmp_path / "model.pt", model)
    tokens = torch.arange(16)[None]
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model.pt")(tokens), model(tokens))


def test_a_model_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match="train the cell again with save_model=true"):
        load_model(tmp_path / "model.pt")
