"""The worker side: activities, which make the HTTP calls."""
