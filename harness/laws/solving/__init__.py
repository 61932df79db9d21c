"""Minimising a law's loss over a table, and the certificate that it was done."""
