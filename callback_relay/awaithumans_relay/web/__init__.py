"""The HTTP side of the relay: callbacks, registrations, the operator API and page, authentication and limits."""
