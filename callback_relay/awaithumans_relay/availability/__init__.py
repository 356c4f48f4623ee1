"""Whether the awaithumans server and each engine can be reached, since when, and why not."""
