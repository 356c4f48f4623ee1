"""The commands of `awaithumans-relay`, one module each. They know no engines; the command line passes them in."""
