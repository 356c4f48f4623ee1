"""Background tasks, clock steps and process settings, which every part of the relay uses."""
