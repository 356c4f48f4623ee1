"""The engine for graphs that run in the process of the relay."""
