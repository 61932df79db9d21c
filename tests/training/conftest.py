import pytest
import torch
from torch._dynamo.convert_frame import ConvertFrame
from untraced import untrace

untrace(ConvertFrame, "__call__")


@pytest.fixture
def one_thread():
    """As a job on a CPU has it; two threads wait for each other where others use the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
