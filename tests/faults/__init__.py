"""Faults with real processes: one file a scenario, every effect is counted on disk. `make faults` runs them."""
