"""racer."""
