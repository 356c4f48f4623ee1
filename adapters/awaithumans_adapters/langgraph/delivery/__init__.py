"""What both engines know about a thread: the questions it waits for, and the answers it has taken."""
