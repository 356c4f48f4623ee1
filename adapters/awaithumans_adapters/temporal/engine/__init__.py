"""The relay side of the Temporal adapter: an outcome becomes a signal or the result of an activity."""
