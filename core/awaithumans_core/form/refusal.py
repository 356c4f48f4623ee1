"""The reason why what a person typed cannot be read."""


class Unreadable(Exception):
    """A text has no reading, or more than one."""

    def __init__(self, advice: str, path: tuple[int | str, ...] = ()) -> None:
        super().__init__(advice)
        self.advice = advice
        """What to write, for the person who is asked again. It does not contain the text."""
        self.path = path
        """The place of the text inside the value: indexes and names. Empty if the text is the whole value."""

    def inside(self, place: int | str) -> "Unreadable":
        """Return the same reason for the value that has this one at a place."""
        return Unreadable(self.advice, (place, *self.path))

    def problem(self, field: str) -> str:
        """Return one line about a field whose value cannot be read, in the form of the problems of an answer."""
        return f"{'.'.join(map(str, (field, *self.path)))}: {self.advice}"
