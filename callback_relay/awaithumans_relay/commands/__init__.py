"""What the commands of `awaithumans-relay` do, one module each. They know no engine; the command line gives them."""
