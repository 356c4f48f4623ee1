"""The sweep: reads the tasks of open waits on a schedule, because not every answer is called back."""
