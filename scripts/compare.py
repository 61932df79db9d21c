"""Sets two ways of training the same cells side by side: losses, exponents, and the differences of both.

    python scripts/compare.py runs=outputs/schedule_check         a sweep that holds both ways
    python scripts/compare.py runs=outputs/cpu,outputs/muon column=optimizer
    python scripts/compare.py runs=outputs/schedule_check law=chinchilla_coupled

Keys are given as key=value.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import run_script
from harness.laws.compare import Comparison, compare
from harness.laws.settings import compare_config
from harness.laws.table.pool import read_sources


def lines(found: Comparison) -> list[str]:
    """The comparison in words."""
    first, second = found.ways
    mean, low, high = found.mean()
    said = [
        f"loss under {second} against {first}, {len(found.cells)} cells: {mean:+.2%} on average "
        f"({low:+.2%} to {high:+.2%}), standard deviation {found.difference_C.std(ddof=1):.2%}"
    ]
    said.insert(0, found.fits[0].predicts)
    said += [f"  at {tokens:,.0f} tokens: {mean:+.2%} ± {se:.2%}" for tokens, mean, se in found.by_budget()]
    for way, fit in zip(found.ways, found.fits, strict=True):
        parts = []
        for name in found.exponents:
            low, high = fit.intervals[name] or (float("nan"), float("nan"))
            parts.append(f"{name} {fit.estimates[name]:.3f} ({low:.3f}-{high:.3f})")
        doubt = "" if fit.certificate.certified else " (NOT certified)"
        said.append(f"{way}: {', '.join(parts)}{doubt}")
    moves = [f"{name} {move:+.3f} ({low:+.3f} to {high:+.3f})" for name, (move, low, high) in found.exponents.items()]
    return said + [f"{second} minus {first}: {', '.join(moves)}"]


def main(arguments: list[str]) -> int:
    config = compare_config(arguments)
    found = compare(read_sources(config.runs, config.columns.target, config.columns.cluster), config, config.column)
    print("\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    run_script(main, "compare")
