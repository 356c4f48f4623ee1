"""The reason why what a person typed cannot be read."""


class Unreadable(Exception):
    """A text has no reading, or more than one."""

    def __init__(self, advice: str, entry: int | None = None) -> None:
        super().__init__(advice)
        self.advice = advice
        """What to write, for the person who is asked again. It does not contain the text."""
        self.entry = entry
        """The index of the entry that cannot be read, if the value is a list."""

    def problem(self, field: str) -> str:
        """Return one line about a field whose value cannot be read, in the form of the problems of an answer."""
        place = field if self.entry is None else f"{field}.{self.entry}"
        return f"{place}: {self.advice}"
