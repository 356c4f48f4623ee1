"""The commands of `awaithumans-relay`, and the checks and connections they share. `engines` imports the adapters."""
