"""The worker side of the Temporal adapter: the activities, which make the HTTP calls."""
