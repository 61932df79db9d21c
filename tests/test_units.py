import pytest

from harness.units import count_label, data_size, duration, machine_hours


@pytest.mark.parametrize(
    ("number", "label"), [(2e6, "2M"), (1.5e6, "1.5M"), (5e5, "500k"), (2.5e9, "2.5B"), (999, "999"), (3e12, "3T")]
)
def test_count_labels(number, label):
    assert count_label(number) == label


def test_fewer_digits():
    assert count_label(1_234_567, 3) == "1.23M"
    assert count_label(999_936, 3) == "1M"


@pytest.mark.parametrize(
    ("seconds", "label"),
    [(45, "45 s"), (59.6, "1 min"), (360, "6 min"), (11_400, "3 h 10 min"), (187_200, "2 d 4 h")],
)
def test_durations(seconds, label):
    assert duration(seconds) == label


@pytest.mark.parametrize(
    ("size", "label"), [(999, "999 B"), (2500, "2.5 kB"), (31.4e6, "31 MB"), (1.25e9, "1.2 GB"), (4e12, "4.0 TB")]
)
def test_sizes_of_data(size, label):
    assert data_size(size) == label


@pytest.mark.parametrize(
    ("seconds", "machine", "label"),
    [
        (300, {"device": "cpu", "threads": 1, "slots": 2, "gpus": 0}, "5.0 core-minutes"),
        (300, {"device": "cpu", "threads": 4, "slots": 2, "gpus": 0}, "20 core-minutes"),
        (72_000, {"device": "cpu", "threads": 1, "slots": 2, "gpus": 0}, "20 core-hours"),
        # three processes share each of two GPUs
        (54_000, {"device": "cuda", "threads": 1, "slots": 6, "gpus": 2}, "5.0 GPU-hours"),
        (
            54_000,
            {"device": "cuda", "threads": 1, "slots": 6, "gpus": 2, "price_per_hour": 2.5},
            "5.0 GPU-hours (12.50 at 2.5 an hour)",
        ),
        (300, {"device": "cpu", "threads": 4, "slots": 2, "gpus": 0, "price_per_hour": None}, "20 core-minutes"),
        # two jobs of two processes each, and a GPU for each of these
        (54_000, {"device": "cuda", "threads": 1, "slots": 2, "ranks": 2, "gpus": 4}, "15 GPU-hours"),
    ],
)
def test_what_processes_occupy_of_a_machine(seconds, machine, label):
    assert machine_hours(seconds, machine) == label
