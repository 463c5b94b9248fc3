"""Faulty files judged as the artefact is, and the search for inputs that tell them from it."""
