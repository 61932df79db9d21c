"""How well laws predict cells that they have not seen."""
