"""A set of digests that takes eight bytes for each of those it has had for a while."""

import numpy as np

MOST_RECENT = 2**20


class DigestSet:
    def __init__(self, digests: np.ndarray) -> None:
        self.settled = np.unique(digests)
        self.recent: set[int] = set()

    def add(self, digest: int) -> bool:
        """Whether it is new."""
        if digest in self.recent or (len(self.settled) and self._is_settled(digest)):
            return False
        self.recent.add(digest)
        if len(self.recent) > MOST_RECENT:
            self.settled = np.union1d(self.settled, np.fromiter(self.recent, np.uint64, len(self.recent)))
            self.recent = set()
        return True

    def _is_settled(self, digest: int) -> bool:
        at = self.settled.searchsorted(np.uint64(digest))
        return bool(at < len(self.settled)) and int(self.settled[at]) == digest
