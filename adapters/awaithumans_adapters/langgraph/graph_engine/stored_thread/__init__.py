"""One thread as its checkpointer stores it: the thread, a question in it, its current step, and the answers."""
