"""What `awaithumans-relay dev` starts and shows: real servers on 127.0.0.1, for one developer on one machine."""
