"""The services that this package calls, and the advice for an address at which no service, or another one, answers.

Law: an error about an address names the URL, the setting that it comes from, and what to start or correct. The callers,
the relay and `doctor` take these sentences from here, so that one problem is described in the same words everywhere.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Service:
    """A service that this package calls at an address from the settings."""

    name: str
    """What it is called in texts, with its article."""
    setting: str
    """The variable, or the flag of the relay's command line, that holds its address."""
    start: str
    """The command that starts one for development."""
    form: str = ""
    """The form of the address that the setting must hold, to append to `its address`."""

    def at(self, url: str) -> str:
        """Return the URL with the setting that it comes from."""
        return f"{url} ({self.setting})"

    @property
    def if_silent(self) -> str:
        """What to do if there is no reply, as a sentence without its full stop."""
        return f"Start {self.name} (for development: `{self.start}`), or set {self.setting} to its address"

    @property
    def if_other(self) -> str:
        """What to do if the reply is not the service's own, as a question and a sentence without its full stop."""
        return (
            f"Is this {self.name}? If not, set {self.setting} to its address{self.form}, or start it (for development: "
            f"`{self.start}`)"
        )


SERVER = Service("the awaithumans server", "AWAITHUMANS_URL", "awaithumans-relay dev", ", without a path")
RELAY = Service(
    "the relay",
    "AWAITHUMANS_RELAY_URL",
    "awaithumans-relay dev",
    " (with the path under which an application includes it)",
)
ENGINES = {
    "temporal": Service("the Temporal server", "--temporal", "temporal server start-dev"),
    "langgraph-server": Service("the LangGraph server", "--langgraph-server", "langgraph dev"),
}
"""The services that engines call, by the name of the engine. The setting is a flag of `awaithumans-relay serve`."""

_FLAGS = {
    "temporal": "--temporal ADDRESS",
    "langgraph": "--graph NAME=module:attribute",
    "langgraph-server": "--langgraph-server URL",
}


def with_flag(engine: str) -> str:
    """Return the name of an engine with the flag of `awaithumans-relay serve` that adds it, if there is one."""
    return f"{engine!r} (`{flag}`)" if (flag := _FLAGS.get(engine)) is not None else repr(engine)


WRONG_RELAY_SECRET = (
    "the token was not signed with this relay's AWAITHUMANS_RELAY_SECRET: give the relay and every process that asks "  # noqa: S105 - a text
    "through it the same value"
)
"""Text of the error about a wrong relay secret, for the caller and for the relay's log."""
