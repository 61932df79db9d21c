"""Learning-rate factors by step."""

import math


def trunk_factor(step: int, warmup_steps: int) -> float:
    """Linear warmup to 1, then constant; step counts from 0."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def cooldown_factor(step: int, branch_step: int, steps: int) -> float:
    """1 - sqrt(t) over the cooldown, t running from 0 at branch_step to 1 at steps (Haegele et al. 2024)."""
    return 1.0 - math.sqrt((step - branch_step) / (steps - branch_step))


def cosine_factor(step: int, warmup_steps: int, steps: int, final_fraction: float) -> float:
    """Linear warmup to 1, then half a cosine down to final_fraction at `steps`."""
    if step < warmup_steps:
        return trunk_factor(step, warmup_steps)
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * done))
