"""The body of a request that creates a task, laid out for the people who read it.

Law: nothing here is part of a question's identity. The digest of the payload is that of the payload which the caller
gave, and the form is not compared (see `binding`).
"""

from collections.abc import Mapping
from typing import Any, cast

from awaithumans_core.binding import PAYLOAD_DIGEST, payload_digest
from awaithumans_core.display.full_values import full_values
from awaithumans_core.display.rows import rows
from awaithumans_core.notification_routes import channels_of


def displayed(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the body of `POST /api/tasks` with its payload as rows, and long values in full in the form.

    A payload whose values are all plain is not changed. Neither is one with `redact_payload`, which no channel shows.

    Args:
        body: `HumanTask.body()`, with the payload as the caller gave it.
    """
    channels, sent = channels_of(body.get("notify")), dict(body)
    shown: Mapping[str, Any] = {}
    payload = body.get("payload")
    if isinstance(payload, Mapping) and not body.get("redact_payload"):
        given = cast("Mapping[str, Any]", payload)
        shown = rows(given, slack="slack" in channels)
        if shown != given:
            sent["payload"] = shown
            sent["payload_schema"] = {**body.get("payload_schema", {}), PAYLOAD_DIGEST: payload_digest(given)}
    form = body.get("form_definition")
    if isinstance(form, Mapping) and (above := full_values(body, shown, channels)):
        sent["form_definition"] = {**form, "fields": [*above, *cast("Mapping[str, Any]", form).get("fields", ())]}
    return sent
