"""The fitted floor against the known one."""

from harness.errors import UserError
from harness.laws.claims.measured import Evidence, Measured, Row


def above_floor(evidence: Evidence) -> Measured:
    """E less the loss of the best predictor, over the smallest excess of a cell above that; raises UserError."""
    content = evidence.content("fit")
    found = content.get("floor")
    if found is None:
        raise UserError(f"{evidence.folder} knows no floor of its text: train it on data=synthetic, of known entropy")
    known = float(found["known"])
    smallest = float(evidence.ready.rows.loss.min()) - known
    if not smallest > 0:
        raise UserError(
            f"{evidence.folder} has a cell at or below the known floor {found['known']:.4f}: that cannot be"
        )
    rows = []
    for fit in content["by_loss"]:
        estimate = (fit["estimates"]["E"] - known) / smallest
        low, high = (None if end is None else (end - known) / smallest for end in fit["intervals"]["E"] or (None, None))
        rows.append(Row(f"E, {fit['loss']}", estimate, low, high, fit["loss"] == content["fit"]["loss"]))
    (own,) = (row for row in rows if row.decides)
    certificate = content["fit"]["certificate"]
    doubts = [] if certificate["certified"] else [f"the fit is not certified: {'; '.join(certificate['reasons'])}"]
    words = f"E less the known floor of {known:.4f} nats, over the smallest excess of {smallest:.4f}"
    method = f"{content['fit']['predicts']}; {content['fit']['interval_method']}"
    return Measured(words, method, own.estimate, own.low, own.high, rows, doubts=doubts)
