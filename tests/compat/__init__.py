"""Proofs that the package works with the versions and extras that `pyproject.toml` allows."""
