"""What may be wrong with a table, a fit, or the numbers that others published."""
