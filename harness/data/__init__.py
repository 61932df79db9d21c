"""Corpora to token stores to batches."""
