"""Files in, verdicts out."""
