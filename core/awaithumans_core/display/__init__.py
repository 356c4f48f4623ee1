"""What a reviewer sees of a question: its payload as readable rows, and the channels that cannot show its form."""
