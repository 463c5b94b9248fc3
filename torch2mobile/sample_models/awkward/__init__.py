"""Models that cannot go to a phone as they are, each for one reason."""
