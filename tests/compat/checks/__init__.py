"""Programs that run in each environment of `tests.compat`.

Each is run by its path, so the environment needs nothing but the package. A check passes if its exit status is 0.
"""
