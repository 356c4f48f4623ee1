"""The demo: three callers ask a person on real servers. Run it with `make demo`."""
