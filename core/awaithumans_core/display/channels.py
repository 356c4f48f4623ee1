"""Which channels of the server can show a form, so that a caller learns of it when the question is asked.

The facts are those of awaithumans 0.1.11. A mail has buttons for a form with a single named field, if that is a switch
or a select with at most four options. Slack shows a form in a modal, unless it has a kind of field that Slack has no
block for. In every other case the notification contains only a link to the dashboard.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from awaithumans_core.notification_routes import channels_of
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans")

MAX_MAIL_OPTIONS = 4
"""Maximum number of options that a mail shows as buttons."""

_NOT_IN_SLACK = {
    *("rich_text", "ranking", "date_range", "signature", "video", "pdf_viewer"),
    *("html", "section_collapse", "table", "subform"),
}
"""Kinds for which the server has no block in Slack."""


class Unrendered(NamedTuple):
    """A channel that a person is notified on, and the fields of the form that cannot be answered there."""

    channel: str
    """The channel: `mail` or `Slack`."""
    fields: tuple[str, ...]


def unrendered(form: Mapping[str, Any], notify: str | Sequence[str]) -> Iterator[Unrendered]:
    """Yield each channel of `notify` that cannot show the form, with the names of the fields.

    Args:
        form: The `form_definition` of a task.
        notify: The `notify` of a task, for instance `["email:person@example.com"]`.
    """
    shown: list[Mapping[str, Any]] = list(form.get("fields", ()))
    channels = channels_of(notify)
    if "email" in channels:
        named = [
            field for field in shown if field.get("name")
        ]  # the server counts names, also of parts without an input
        if len(named) != 1 or not _has_buttons(named[0]):
            yield Unrendered("mail", tuple(str(field["name"]) for field in named))
    if "slack" in channels and (hard := [field for field in shown if field.get("kind") in _NOT_IN_SLACK]):
        yield Unrendered("Slack", tuple(str(field.get("name") or field.get("kind")) for field in hard))


def _has_buttons(field: Mapping[str, Any]) -> bool:
    options: Sequence[Any] = field.get("options") or ()
    return field.get("kind") == "switch" or (
        field.get("kind") == "single_select" and 0 < len(options) <= MAX_MAIL_OPTIONS
    )


def warn_if_unrendered(body: Mapping[str, Any]) -> None:
    """Log a warning for each channel of a question that shows only a link to the dashboard.

    It is logged once for a form and a channel in a process, because a workflow may ask thousands of times.

    Args:
        body: The body of `POST /api/tasks`.
    """
    form, notify = body.get("form_definition"), body.get("notify")
    if not isinstance(form, Mapping) or not notify:
        return
    for found in unrendered(cast("Mapping[str, Any]", form), notify):
        _warn(found)


@lru_cache(maxsize=500)
def _warn(found: Unrendered) -> None:
    rule = f" (a mail has buttons for a single switch or a single select of at most {MAX_MAIL_OPTIONS} options)"
    logger.warning(
        "form cannot be answered in %s, which shows a link to the dashboard instead: fields %s%s",
        *(found.channel, ", ".join(found.fields), rule if found.channel == "mail" else ""),
    )
