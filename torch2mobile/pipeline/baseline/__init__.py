"""A bundle against an earlier one: what has drifted, and what changed since."""
