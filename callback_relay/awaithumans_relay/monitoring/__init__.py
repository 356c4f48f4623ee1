"""What the relay reports about its work: log lines, metrics and spans."""
