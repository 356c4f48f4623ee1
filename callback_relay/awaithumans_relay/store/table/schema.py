"""The waits table and its schema version.

One row is one caller waiting for one task. A release that changes the table adds a step to `_STEPS`. A relay migrates
databases of any earlier release when it starts. If several relays start at once, one of them migrates.
"""

from collections.abc import Callable

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    select,
    text,
)

metadata = MetaData()

waits = Table(
    "waits",
    metadata,
    Column("task_id", String(255), primary_key=True),
    Column("route_digest", String(32), primary_key=True),
    Column("engine", String(255), nullable=False),
    Column("target", JSON, nullable=False),
    Column("target_id", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("registered_at", Float),
    Column("deadline_at", Float, nullable=False),
    Column("next_check_at", Float, nullable=False),
    Column("outcome", JSON(none_as_null=True)),
    Column("found_by", String(16)),
    Column("answered_at", Float),
    Column("next_attempt_at", Float),
    Column("attempts", Integer, nullable=False, default=0),
    Column("not_ready_since", Float),
    Column("lease_owner", String(64)),
    Column("lease_until", Float),
    Column("delivered_at", Float),
    Column("redriven_at", Float),
    Column("last_error", Text),
    Column("traceparent", String(55)),
    Column("run_position", String(64)),
    Column("run_starts", Integer, nullable=False, server_default="0", default=0),
    Column("missing_since", Float),
    Column("missing_count", Integer),
    Column("seen_at", Float),
    Column("redeliveries", Integer, nullable=False, server_default="0", default=0),
    Column("redelivered_at", Float),
    Column("encoded", Boolean),
    Column("asked_at", JSON(none_as_null=True)),
    Column("caller", JSON(none_as_null=True)),
    Index("waits_to_check", "state", "next_check_at"),
    Index("waits_to_deliver", "state", "engine", "next_attempt_at"),
    Index("waits_leased", "lease_owner"),
    Index("waits_finished", "state", "delivered_at"),
    Index("waits_missing", "missing_since"),
    Index("waits_seen", "seen_at"),
    Index("waits_of_route", "route_digest"),
    Index("waits_by_age", "state", "created_at"),
)
"""The waits table. Times are epoch seconds."""

sweep_budget = Table(
    "sweep_budget",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("left_seconds", Float, nullable=False),
    Column("counted_at", Float, nullable=False),
)
"""One row: the request time that the sweeps of all relays may use, and when it was counted."""

schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))


def _add_redrive_column_and_indexes(db: Connection) -> None:
    db.execute(text("ALTER TABLE waits ADD COLUMN redriven_at FLOAT"))
    db.execute(text("CREATE INDEX waits_leased ON waits (lease_owner)"))
    db.execute(text("CREATE INDEX waits_finished ON waits (state, delivered_at)"))


def _add_trace_column(db: Connection) -> None:
    db.execute(text("ALTER TABLE waits ADD COLUMN traceparent VARCHAR(55)"))


def _add_run_columns(db: Connection) -> None:
    db.execute(text("ALTER TABLE waits ADD COLUMN run_position VARCHAR(64)"))
    db.execute(text("ALTER TABLE waits ADD COLUMN run_starts INTEGER DEFAULT 0 NOT NULL"))


def _add_missing_task_columns(db: Connection) -> None:
    db.execute(text("ALTER TABLE waits ADD COLUMN missing_since FLOAT"))
    db.execute(text("ALTER TABLE waits ADD COLUMN missing_count INTEGER"))
    db.execute(text("ALTER TABLE waits ADD COLUMN seen_at FLOAT"))
    db.execute(text("CREATE INDEX waits_missing ON waits (missing_since)"))
    db.execute(text("CREATE INDEX waits_seen ON waits (seen_at)"))
    db.execute(text("CREATE INDEX waits_of_route ON waits (route_digest)"))


def _add_redelivery_columns(db: Connection) -> None:
    db.execute(text("ALTER TABLE waits ADD COLUMN redeliveries INTEGER DEFAULT 0 NOT NULL"))
    db.execute(text("ALTER TABLE waits ADD COLUMN redelivered_at FLOAT"))


def _add_encoded_column(db: Connection) -> None:
    db.execute(text("ALTER TABLE waits ADD COLUMN encoded BOOLEAN"))


def _add_asked_at_column(db: Connection) -> None:
    db.execute(text("ALTER TABLE waits ADD COLUMN asked_at JSON"))


def _add_caller_column(db: Connection) -> None:
    db.execute(text("ALTER TABLE waits ADD COLUMN caller JSON"))


def _add_sweep_budget(db: Connection) -> None:
    db.execute(text("CREATE INDEX waits_by_age ON waits (state, created_at)"))
    db.execute(
        text(
            "CREATE TABLE sweep_budget (id INTEGER PRIMARY KEY, left_seconds FLOAT NOT NULL, counted_at FLOAT NOT NULL)"
        )
    )


_STEPS: dict[int, Callable[[Connection], None]] = {
    2: _add_redrive_column_and_indexes,
    3: _add_trace_column,
    4: _add_run_columns,
    5: _add_missing_task_columns,
    6: _add_redelivery_columns,
    7: _add_encoded_column,
    8: _add_asked_at_column,
    9: _add_caller_column,
    10: _add_sweep_budget,
}
"""Schema version -> the step that migrates a database from the version before. A released step is never changed."""

SCHEMA_VERSION = 1 + len(_STEPS)


def migrate(db: Connection) -> None:
    """Create the table, or migrate it, in the caller's transaction.

    Raises:
        RuntimeError: The database was created by a later release than this one.
    """
    metadata.create_all(db, tables=[schema_version])
    found = db.execute(select(schema_version.c.version)).scalars().first()
    if found is None:
        metadata.create_all(db)
        db.execute(schema_version.insert().values(version=SCHEMA_VERSION))
        return
    if found > SCHEMA_VERSION:
        raise RuntimeError(
            f"the database has schema version {found}, of a later release; this one knows {SCHEMA_VERSION}"
        )
    for version in range(found + 1, SCHEMA_VERSION + 1):
        _STEPS[version](db)
        db.execute(schema_version.update().values(version=version))
