"""The scenarios. Each module has one `SCENARIO`."""
