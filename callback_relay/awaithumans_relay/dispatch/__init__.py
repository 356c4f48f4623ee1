"""The dispatcher: delivers each answered wait to its engine, under a lease, until it is delivered or parked."""
