"""The order of the stages: export, verify, simplify. Turns what a stage raises into a Check."""
