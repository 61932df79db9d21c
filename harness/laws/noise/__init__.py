"""What runs differ by that no law explains, and the intervals that follow."""
