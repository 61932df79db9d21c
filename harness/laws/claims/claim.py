"""A claim: what a sweep decides and by which number, stated before anything is trained, and its verdict after."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.files import write_atomically
from harness.laws.claims.quantities import Evidence, Measured, check_quantity, measure
from harness.laws.provenance import plain, versions
from harness.records import SweepFolder, read_sweep

SCHEMA = 1
EXAMPLE = "write claim: {text: ..., quantity: fit.a, rule: {low: 0.45, high: 0.55}}"


@dataclass(frozen=True)
class Claim:
    """What is claimed, the quantity that decides it, and the range in which it holds; null: without an end."""

    text: str
    quantity: str
    low: float | None
    high: float | None

    def stated(self) -> dict[str, Any]:
        """As sweep.yaml has it."""
        return {"text": self.text, "quantity": self.quantity, "rule": self.rule}

    @property
    def rule(self) -> dict[str, float | None]:
        return {"low": self.low, "high": self.high}


def claim_of(given: Any, law: str) -> Claim | None:
    """The key `claim` of a sweep whose law is `law`; None without one. Raises UserError where it decides nothing."""
    if given is None:
        return None
    if not isinstance(given, Mapping) or set(given) != {"text", "quantity", "rule"}:
        raise UserError(f"claim={given} has not the keys text, quantity and rule: {EXAMPLE}")
    text, rule = " ".join(str(given["text"]).split()), given["rule"]
    if not text:
        raise UserError(f"claim.text is empty: {EXAMPLE}")
    if not isinstance(rule, Mapping) or not set(rule) <= {"low", "high"}:
        raise UserError(f"claim.rule={rule} has other keys than low and high: {EXAMPLE}")
    low, high = (_end(rule.get(name), name) for name in ("low", "high"))
    if low is None and high is None:
        raise UserError("claim.rule has neither low nor high, so that nothing could fail it: give one of them")
    if low is not None and high is not None and not low < high:
        raise UserError(f"claim.rule.low={low:g} is not below claim.rule.high={high:g}: swap them")
    check_quantity(str(given["quantity"]), law)
    return Claim(text, str(given["quantity"]), low, high)


def _end(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"claim.rule.{name}={value} is no number: give one, or leave it out")
    return float(value)


@dataclass(frozen=True)
class Verdict:
    """holds, fails or undecided; and why, or what would decide it."""

    verdict: str
    reason: str


def judge(claim: Claim, found: Measured) -> Verdict:
    """holds where the interval lies inside the rule, fails where it lies wholly outside, else undecided."""
    if found.doubts:
        return Verdict("undecided", "; ".join(found.doubts))
    assert found.estimate is not None and found.low is not None and found.high is not None
    low, high = (-math.inf if claim.low is None else claim.low), (math.inf if claim.high is None else claim.high)
    if low <= found.low and found.high <= high:
        return Verdict("holds", "the whole interval lies inside the rule")
    if found.high < low or high < found.low:
        return Verdict("fails", "the whole interval lies outside the rule")
    factor = _narrower(found.estimate, found.low, found.high, low, high)
    if factor > 10:
        return Verdict("undecided", "the estimate lies at an end of the rule, so that no interval would decide soon")
    if factor < 1.1:
        return Verdict("undecided", "an interval a little narrower about the same estimate would decide it")
    return Verdict(
        "undecided",
        f"an interval {factor:.2g} times narrower about the same estimate would decide it: about {factor**2:.2g} times "
        "as many runs, or cells over a wider range",
    )


def _narrower(estimate: float, below: float, above: float, low: float, high: float) -> float:
    """How many times narrower the interval must be to lie inside the rule, or outside; it does neither now."""
    if low <= estimate <= high:
        arms = [(estimate - below, estimate - low), (above - estimate, high - estimate)]
        return max(arm / room if room else math.inf for arm, room in arms if arm > room)
    arm, room = (above - estimate, low - estimate) if estimate < low else (estimate - below, estimate - high)
    return arm / room


@dataclass(frozen=True)
class Decided:
    """A claim with what was measured; `content` is that of claim.json."""

    content: dict[str, Any] = field(repr=False)

    def lines(self) -> list[str]:
        """What a person reads."""
        found = self.content
        return [f"claim: {found['claim']}", sentence(found), *filter(None, [found.get("beside")])]


def sentence(content: Mapping[str, Any]) -> str:
    """The verdict of a claim.json with its number, in one line."""
    shown = "not measured" if content["estimate"] is None else number(content)
    return f"{content['verdict']}: {content['measures']} {shown}, rule {rule(content)}: {content['reason']}"


def number(content: Mapping[str, Any]) -> str:
    """An estimate with its interval: .455 (.397 to .520)."""
    value, low, high = (content[key] for key in ("estimate", "low", "high"))
    if low is None or high is None:
        return f"{value:.4g} (no interval)"
    return f"{value:.4g} ({low:.4g} to {high:.4g})"


def rule(content: Mapping[str, Any]) -> str:
    """The rule in words."""
    low, high = content["rule"]["low"], content["rule"]["high"]
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"


def stated_in(folder: Path) -> Claim | None:
    """The claim of a sweep's folder; raises UserError where that is none."""
    content = read_sweep(SweepFolder(folder))
    return claim_of(content.get("claim"), str(content.get("law", "chinchilla")))


def decide(folder: Path) -> Decided:
    """Measures what decides a sweep's claim; raises UserError where it states none, or its files are missing."""
    claim = stated_in(folder)
    if claim is None:
        raise UserError(f"{folder} states no claim: give its sweep one before it is trained, {EXAMPLE}")
    found = measure(claim.quantity, Evidence(folder))
    said = judge(claim, found)
    return Decided(plain({
        "schema": SCHEMA,
        "claim": claim.text,
        "quantity": claim.quantity,
        "rule": claim.rule,
        "estimate": found.estimate,
        "low": found.low,
        "high": found.high,
        **asdict(said),
        "measures": found.words,
        "method": found.method,
        "rows": [asdict(row) for row in found.rows],
        "panel": found.panel and asdict(found.panel),
        **({"panels": [asdict(panel) for panel in found.panels]} if found.panels else {}),
        **({"beside": found.beside} if found.beside else {}),
        "sources": found.sources,
        "versions": versions(),
    }))  # fmt: skip


def write_claim(folder: Path) -> Decided:
    """decide, written as claim.json in the sweep's folder."""
    found = decide(folder)
    write_atomically(folder / "claim.json", json.dumps(found.content, indent=1, allow_nan=False) + "\n")
    return found


def read_claim(path: Path) -> dict[str, Any] | None:
    """The content of a claim.json; None where there is none. Raises UserError where it is damaged."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(f"{path} is not JSON: `python scripts/claim.py runs={path.parent}` writes it anew") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"{path} is of another version: `python scripts/claim.py runs={path.parent}` writes it anew")
    return content
