"""Knowledge about threads that both engines share: the questions a thread waits for and the answers it has taken."""
