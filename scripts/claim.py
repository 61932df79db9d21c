"""Measures what decides a sweep's claim, prints its verdict and writes claim.json.

    python scripts/claim.py runs=outputs/shape      a sweep that states a claim, as fit.py or compare.py left it
    make claim SWEEP=shape                          the same
    python scripts/claim.py runs=outputs/isoflop    one that is not whole, too

Keys are given as key=value.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import run_script
from harness.laws.claims.claim import write_claim
from harness.laws.claims.settings import claim_config


def main(arguments: list[str]) -> int:
    for line in write_claim(claim_config(arguments)).lines():
        print(line)
    return 0


if __name__ == "__main__":
    run_script(main, "claim")
