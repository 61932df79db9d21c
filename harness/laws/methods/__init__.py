"""Other ways from the same cells to an exponent, and what follows from a fit."""
