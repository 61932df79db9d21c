class UserError(ValueError):
    """A user's mistake in one sentence: what, where, the value, and what to do. Raised before any work."""

    def __init__(self, sentence: str) -> None:
        super().__init__(" ".join(sentence.splitlines()))  # a value that is quoted may have line breaks
