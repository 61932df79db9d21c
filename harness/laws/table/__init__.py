"""From somebody's file to the checked rows of a fit."""
