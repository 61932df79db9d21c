"""Variables of the environment as people set them: whatever reads one gives a result or one sentence."""

import os
import socket
import ssl
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness import slurm
from harness.arguments import expanded
from harness.config import TrainConfig
from harness.errors import UserError
from harness.model import cpu_kernels
from harness.sweep import tasks
from harness.sweep.compose import set_environment
from harness.sweep.target import default_sweep
from harness.tracking import TrackingConfig
from harness.tracking.config import api_key, base_url, resolve_mode, setting, trusts_any_certificate, without_key
from harness.tracking.probe import probe
from harness.tracking.table import fetch
from harness.training import gpus
from harness.training.machine import check_machine

NAMES = (
    "HOME", "TMPDIR", "PATH", "CC", "CUDA_VISIBLE_DEVICES", "WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY",
    "WANDB_BASE_URL", "WANDB_API_KEY", "WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_INSECURE_DISABLE_SSL", "NETRC",
    "http_proxy", "https_proxy", "no_proxy", "NUMBA_CACHE_DIR", "SLURM_CPUS_ON_NODE", "SLURM_CONF", "SLURM_JOB_ID",
    "TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS", "OMP_NUM_THREADS", "LOGNAME", "HF_HOME",
    "PYTORCH_CUDA_ALLOC_CONF",
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        ["", " ", "0", "1", "-1", "16", "1.5", "1e3", "²", "١٢", "9" * 5000, "x", "x" * 300, "x/" * 3000, "é",
         "\udce9", "\n", "a\nb", "\t", "true", "TRUE", "disabled", "dryrun", "offline", "online", "8(x2)", "0,1",
         "1,0,", ",", "GPU-1", "MIG-1/2", "all", "void", "TOP", "TOP/", "TOP/file", "TOP/secret", "TOP/secret/x",
         "TOP/none/x", "TOP/link", "TOP/loop", "..", "~", "~x", "$HOME", "/", "//", "C:\\", "http://[x", "http://[::1",
         "http://a b", "http://h:port", "http://h:99999999", "http://é\n", "file:///etc", "ftp://h", "//h", "h:1",
         "http://", "https://127.0.0.1:9", "http://user:p@ss@h", "%", "%%x"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
)  # fmt: skip


@pytest.fixture(scope="module")
def top(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("environment")
    (top / "secret").mkdir(mode=0o000)
    (top / "wandb").mkdir()
    (top / "file").write_text("machine api.wandb.ai login user\n")
    (top / "wandb" / "settings").write_text("[default\nmode = é")
    (top / "loop").symlink_to("loop")
    (top / "link").symlink_to("wandb")
    yield top
    (top / "secret").chmod(0o700)


def doubled(x):
    return 2 * x


def ask(folder: Path) -> None:
    """All that reads a variable, each for itself: a result, or a UserError of one line."""
    asked = [
        lambda: TrackingConfig().settle(), lambda: TrackingConfig("online").check(),
        lambda: resolve_mode(TrackingConfig()),
        lambda: setting("project"), base_url, api_key, trusts_any_certificate, lambda: without_key("x"), probe,
        lambda: fetch("wandb://me/project/group"), lambda: check_machine(TrainConfig()), gpus.seen, gpus.lock_folder,
        set_environment, slurm.leave_job, lambda: tasks.share_cores(2), lambda: tasks.share_compiled(folder),
        lambda: expanded("~/x"), lambda: cpu_kernels.compiled(doubled), default_sweep,
    ]  # fmt: skip
    for each in asked:
        try:
            each()
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 20_000


@pytest.fixture
def check(top, monkeypatch):
    """Asks under an environment, with no network and two GPUs that this machine pretends to have."""
    monkeypatch.chdir(top)
    (top / "work").mkdir(exist_ok=True)

    def refused(*given, **more):
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda *given: None)  # a tenth of a second each time
    properties = SimpleNamespace(total_memory=2**30, uuid="1", name="GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: properties)
    monkeypatch.setattr(cpu_kernels.numba.config, "CACHE_DIR", cpu_kernels.numba.config.CACHE_DIR)

    def check(environment):
        with monkeypatch.context() as patch:
            for name in [*NAMES, *(name for name in os.environ if name.startswith(("SLURM_", "WANDB_")))]:
                patch.delenv(name, raising=False)
            for name, value in environment.items():
                patch.setenv(name, value.replace("TOP", str(top)))
            patch.setattr(tempfile, "tempdir", None)
            cpu_kernels.numba.config.CACHE_DIR = cpu_kernels._kept_in()
            before = dict(os.environ)
            try:
                ask(top / "work")
            finally:
                os.environ.clear()
                os.environ.update(before)

    return check


def test_any_environment_gives_results_or_sentences(check, top):
    @settings(
        max_examples=max(300, settings().max_examples), deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    @given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5))
    def any_environment(environment):
        check(environment)

    any_environment()
