"""Says what cells will be like that are not trained yet, by a sweep's fit or a table's laws, before they are.

    python scripts/forecast.py runs=outputs/cpu shape=w256-d4 'tokens=[3.6e6]'               into outputs/cpu/forecasts
    python scripts/forecast.py runs=outputs/cpu shape=w256-d4 'tokens=[3.6e6]' train=true    and trains it after that
    python scripts/forecast.py runs=their.csv columns.params=N params=1e9 'tokens=[2e10]' out=forecast.json

Keys are given as key=value.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
import check_environment  # noqa: F401

# isort: split
from harness.commands import run_script
from harness.laws.forecast import check_place, forecast_config, of_table, write_forecast
from harness.laws.prediction.forecast import lines
from harness.records import renew_table


def main(arguments: list[str]) -> int:
    config = forecast_config(arguments)
    own = config.of_sweep()
    check_place(config, own)
    if own:
        from harness.sweep.forecast import forecast_sweep  # imports torch

        renew_table(Path(config.runs))
        return forecast_sweep(config)
    content = of_table(config)
    path = write_forecast(config, content)
    print(*lines(content), f"written to {path}", sep="\n")
    return 0


if __name__ == "__main__":
    run_script(main, "forecast")
