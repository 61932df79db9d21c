class UserError(ValueError):
    """A user's mistake in one sentence: what, where, the value, and what to do. Raised before any work."""
