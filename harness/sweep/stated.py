"""What a sweep states before anything is trained: the law of its headline, and its claim."""

from typing import Any

from harness.config import TrainConfig
from harness.errors import UserError
from harness.records import SweepFolder, is_final, read_sweep


def check_statement(job: TrainConfig) -> None:
    """Raises UserError where a job's law is none, or its claim decides nothing."""
    if job.law != "chinchilla":
        from harness.laws.forms import check_law  # half a second, which the start of every job would pay

        check_law(job.law)
    if job.claim is not None:
        from harness.laws.claims.claim import claim_of

        claim_of(job.claim, job.law)


def statement(job: TrainConfig) -> dict[str, Any]:
    """What sweep.yaml has of it."""
    if job.claim is None:
        return {"law": job.law}
    from harness.laws.claims.claim import claim_of

    claim = claim_of(job.claim, job.law)
    assert claim is not None
    return {"law": job.law, "claim": claim.stated()}


def check_stated(folder: SweepFolder, job: TrainConfig) -> None:
    """Raises UserError where a sweep with results has stated another law or claim: it is no statement after them."""
    if not (folder.sweep_yaml.exists() and any(map(is_final, folder.path.glob("runs/*")))):
        return
    try:
        content = read_sweep(folder)
    except UserError:  # cut off: the command that is issued again writes it anew
        return
    stated, now = content.get("law", "chinchilla"), statement(job)
    if now["law"] != stated:
        raise UserError(
            f"law={now['law']} is not {stated}, which {folder.path} stated before it was trained: keep that, and fit "
            f"another by `python scripts/fit.py runs={folder.path} law={now['law']}`"
        )
    if now.get("claim") != content.get("claim"):
        said = content.get("claim") or {"text": "none"}
        raise UserError(
            f"claim is not that which {folder.path} stated before it was trained ({said['text']}): keep that, or train "
            f"another sweep for this one, as in name={folder.path.name}-2"
        )
