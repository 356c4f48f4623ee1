"""Conditions that select rows of the waits table."""

from sqlalchemy import ColumnElement, and_

from awaithumans_core.route import Route
from awaithumans_relay.store.table.schema import waits


def this_wait(task_id: str, route: Route) -> ColumnElement[bool]:
    """Select the wait of one route for one task."""
    return and_(waits.c.task_id == task_id, waits.c.route_digest == route.digest)


def same_question(task_id: str, key: str) -> ColumnElement[bool]:
    """Select the waits for one question. An answer reaches only these."""
    return and_(waits.c.task_id == task_id, waits.c.idempotency_key == key)
