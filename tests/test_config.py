import pytest
from hydra.core.config_store import ConfigStore
from hypothesis import given
from hypothesis import strategies as st

from harness.config import Rule, TrainConfig
from harness.errors import UserError
from harness.sweep.compose import compose_sweep


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tokens=1e6", "model.widht=64"], "there is no key model.widht; did you mean model.width?"),
        (["tokens=1e6", "model.width=abc"], "model.width"),
        (["tokens=1e6", "model=gpt5"], "model=gpt5 is not there: choose custom, gpt, gpt2, llama"),
        (["tokens=1e6", "model=2"], "model=2 is not there: choose custom, gpt, gpt2, llama"),
        (["tokens=1e6", "model=null"], "model=null names no entry of conf/model: --help lists them"),
        (["tokens=1e6", "model=[1]"], "model=[1] names no entry of conf/model"),
        (["-m", "tokens=1e6", "model=gpt,null"], "model=gpt,null names no entry of conf/model"),
        (["tokens=1e6", "output_directory="], "output_directory is empty: name the folder that holds the sweeps"),
        (["tokens=1e6", "name='a\nb'"], "name=a b cannot name a folder"),
        (["tokens=1e6", "+sweep=huge"], "sweep=huge is not there: choose"),
        (["tokens=1e6", "model.width=72"], "model.width=72"),
        (["tokens=1e6", "model.head_size=15", "model.width=60"], "model.head_size=15"),
        ([], "no budget is given: set tokens"),
        (["tokens=-1"], "tokens=-1 is not a budget"),
        (["tokens=[2e6,1e6]"], "tokens: 1e+06 comes after 2e+06"),
        (["tokens=[1e6,1000000]"], "tokens: 1e+06 is doubled"),
        (["tokens=1e16"], "tokens=1e+16 is more than float64 counts exactly"),
        (["tokens=many"], "tokens=many is not a budget"),
        (["tokens=[]"], "tokens=[] names no budget"),
        (["tokens=1e6", "flops=1e12"], "tokens and flops are both given"),
        (["tokens=1e6", "shape=64x4"], "shape=64x4 is not a shape: write w64-d4"),
        (["tokens=1e6", "seed=-1"], "seed=-1 must lie between"),
        (["tokens=1e6", "device=gpu"], "device=gpu is not known"),
        (["tokens=1e6", "precision=fp8"], "precision=fp8 is not known"),
        (["tokens=1e6", "price_per_hour=-1"], "price_per_hour=-1 is no price: give one above 0"),
        (["tokens=1e6", "threads=0"], "threads=0 must be at least 1"),
        (["tokens=1e6", "gpus=0"], "gpus=0 must be at least 1"),
        (["tokens=1e6", "gpus=2", "device=cuda:1"], "gpus=2 and device=cuda:1, which is one: take device"),
        (["tokens=1e6", "gpus=2", "device=mps"], "gpus=2 and device=mps, of which a machine has one: take gpus=1"),
        (["tokens=1e6", "slots_per_gpu=0"], "slots_per_gpu=0 is no number of jobs: give auto, or 1 or more"),
        (["tokens=1e6", "slots_per_gpu=many"], "slots_per_gpu=many is no number of jobs"),
        (["tokens=1e6", "name=../x"], "name=../x cannot name a folder"),
        (["tokens=1e6", "optimizer.learning_rate.value=0"], "optimizer.learning_rate.value=0"),
        (["tokens=1e6", "optimizer.beta2=1"], "optimizer.beta2=1 must be at least 0 and below 1"),
        (["tokens=1e6", "optimizer.name=sgd"], "optimizer.name=sgd is not known"),
        (["tokens=1e6", "schedule.cooldown_fraction=1"], "schedule.cooldown_fraction=1"),
        (["tokens=1e6", "optimizer.batch_tokens.tokens_exponent=.5"], "makes the trunk depend on"),
        (["tokens=1e6,2e6"], "tokens has several values: add -m"),
        (["tokens"], "tokens is not an override: write key=value"),
        (["tokens=1e6", "hydra.sweeper.params={seed:1}"], "an axis is written as key=a,b,c"),
        (["tokens=1e6", "+model.size=3"], "+model.size=3: there is no key model.size"),
        (["tokens=[1e6"], "tokens=[1e6 cannot be read as key=value: close its brackets"),
        (["-m", "tokens=1e6", "model.width=64,sixty,32"], "model.width: Value 'sixty'"),
        (["-m", "tokens=1e6", "shape=w64-d2,w50-d2"], "model.width=50 is not divisible by"),
        (["-m", "tokens=1e6", "hydra/launcher=cloud"], "hydra/launcher=cloud is not there: choose"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(arguments, said):
    with pytest.raises(UserError) as caught:
        compose_sweep(arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["slurm", "submitit_slurm"])
def test_a_launcher_without_its_plugin_names_the_extra(monkeypatch, name):
    compose_sweep(["tokens=1e6"])  # Hydra has now found the plugins that are here
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], "submitit_slurm.yaml", raising=False)
    with pytest.raises(UserError, match=r"^hydra/launcher=slurm is not installed: .* 'scaling-harness\[slurm\]'$"):
        compose_sweep(["-m", "tokens=1e6", f"hydra/launcher={name}"])


def test_tokens_are_read_in_every_spelling(compose):
    for spelling in ("tokens=1e6", "tokens=1000000", "tokens=[1e6]", "tokens='1e6'"):
        assert compose(spelling).budgets() == ("tokens", [1e6])


def test_an_axis_makes_a_job_a_value_but_for_budgets(tmp_path):
    sweep = compose_sweep(["-m", f"output_directory={tmp_path}", "model.width=32,64", "tokens=1e6,2e6"])
    assert [(job.model.width, job.budgets()[1]) for job in sweep.jobs] == [(32, [1e6, 2e6]), (64, [1e6, 2e6])]


def test_a_grid_file_gives_its_axes_and_the_command_line_replaces_one():
    sweep = compose_sweep(["+sweep=smoke", "shape=w32-d1,w48-d2-s3"])
    assert sweep.multirun
    shapes = [(job.model.width, job.model.depth, job.seed) for job in sweep.jobs]
    assert shapes == [(32, 1, 0), (48, 2, 3)]


def test_a_rule_is_a_power_law_of_size():
    # 4x the reference size at exponent -1/2 halves; 100x the tokens at 1/2 gives ten times
    rule = Rule(value=0.02, params_exponent=-0.5, reference_params=1e6)
    assert rule.at(4_000_000, None) == pytest.approx(0.01)
    rule = Rule(value=512.0, tokens_exponent=0.5, reference_tokens=1e6)
    assert rule.at(123, 1e8) == pytest.approx(5120.0)


@given(st.lists(st.floats(1.0, 1e15), min_size=1, max_size=6))
def test_budgets_come_back_ascending_or_are_refused(values):
    config = TrainConfig(name="x", tokens=values)
    if sorted(set(values)) == values:
        assert config.budgets() == ("tokens", values)
    else:
        with pytest.raises(UserError):
            config.budgets()


def test_a_command_line_of_one_job_is_composed_once(compose, monkeypatch):
    monkeypatch.setattr("harness.sweep.grids.compose", None)
    job = compose("model.width=48", "model=llama", "tokens=[1e5,2e5]")
    assert (job.model.width, job.model.family, list(job.tokens)) == (48, "llama", [1e5, 2e5])
