"""What a sweep decides: a claim, the number that decides it, and the verdict."""
