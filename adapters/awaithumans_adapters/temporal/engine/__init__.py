"""The relay side: an outcome becomes a signal or the result of an activity."""
