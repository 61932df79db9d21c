"""What a fit shows of itself in a terminal, in a notebook and in a list."""

import pytest

from harness.laws import fit
from harness.laws.display import digits


@pytest.mark.parametrize(
    ("value", "interval", "shown"),
    [
        (0.3951, (0.36222, 0.42914), ["0.395", "0.362", "0.429"]),  # half .033
        (403.21, (395.1444, 412.0), ["403.2", "395.1", "412.0"]),  # half 8.1
        (400.0, (12.0, 13000.0), ["400", "12", "13000"]),
        (1.234e9, (8e8, 2e9), ["1.23e+09", "8e+08", "2e+09"]),
        (2.5e-5, (1e-5, 0.4), ["2.5e-05", "1e-05", "0.4"]),
        (0.5, (0.6, 0.64), ["0.500", "0.600", "0.640"]),
        (2.0, (2.0, 2.0), ["2.000000", "2.000000", "2.000000"]),
        (0.0, None, ["0"]),
        (0.123456, None, ["0.1235"]),
    ],
)
def test_a_number_has_the_digits_that_its_interval_allows(value, interval, shown):
    assert digits(value, interval) == shown


@pytest.fixture(scope="module")
def good(simulated):
    return fit(simulated(noise=0.001), loss="log_mse")


@pytest.fixture(scope="module")
def doubtful(simulated):
    table = simulated(noise=0.001)
    return fit(table.assign(loss=table["params_with_head"] ** -0.2 * table["tokens"] ** -0.05 * 50), loss="log_mse")


def test_a_certified_fit_prints_every_estimate_with_its_interval(good):
    lines = str(good).splitlines()
    assert lines[0] == ("chinchilla: L = E + A / N^alpha + B / D^beta; L = loss, N = params_with_head, D = tokens")
    assert lines[2].split() == ["estimate", "95", "%", "interval"]
    assert [line.split()[0] for line in lines[4:10]] == ["E", "A", "B", "alpha", "beta", "a"]
    low, high = good.intervals["alpha"]
    assert f" {good.estimates['alpha']:.3f}     {low:.3f} to {high:.3f}" in lines[7]
    assert lines[-3].startswith("objective: ") and lines[-3].endswith("the sum of log_mse over 32 rows")
    assert lines[-2].startswith("intervals: Student's t on the curvature")
    assert lines[-1].startswith("certified: gradient")
    assert "NOT" not in str(good)


def test_a_doubtful_fit_says_so_and_why_wherever_it_is_shown(doubtful):
    why = "NOT certified: E is at the lower bound 0"
    assert str(doubtful).splitlines()[-1] == why
    assert "estimate (NOT certified)  95 % interval" in str(doubtful)
    assert f"<p>{why}</p>" in doubtful._repr_html_()
    assert "<th>estimate (NOT certified)</th>" in doubtful._repr_html_()
    assert "NOT certified" in repr(doubtful)


def test_repr_is_one_short_line(good):
    assert repr(good).startswith("Fit(chinchilla, log_mse, 32 rows, certified: E=2.1")
    assert len(repr(good)) < 140 and "\n" not in repr(good)


def test_a_notebook_gets_escaped_text(simulated):
    name = "<b>loss</b> & [bold]x[/]"
    shown = fit(simulated(noise=0.001).rename(columns={"loss": name}), target=name)
    page = shown._repr_html_()
    assert "L = &lt;b&gt;loss&lt;/b&gt; &amp; [bold]x[/]" in page and "<b>loss" not in page
    assert page.count("<tr>") == 7 and page.count("</td>") == 6 * 3
    assert name in str(shown)
