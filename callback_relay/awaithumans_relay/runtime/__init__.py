"""Tasks in the background, steps of the clock and process settings, which every part of the relay uses."""
