"""Can this model go there? Rules with codes, and what looks for each of them."""
