"""What a reviewer sees of a question: the payload as rows, long values in full, and what each channel cannot show."""
