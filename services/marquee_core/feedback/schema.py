"""The tables of the feedback log. The migrations create them; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)

METADATA = MetaData()

# SQLite generates values for a primary key only if its type is INTEGER.
POSITION = BigInteger().with_variant(Integer(), "sqlite")

LOG = Table(
    "feedback_log",
    METADATA,
    # `autoincrement`, because SQLite would otherwise reuse the positions of deleted entries.
    Column("position", POSITION, primary_key=True, autoincrement=True),
    Column("type", SmallInteger, nullable=False),
    Column("user_id", String(256)),
    Column("item_id", String(256)),
    Column("kind", SmallInteger),
    Column("value", Double),
    Column("time_us", BigInteger, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("event_id", String(128)),
    Column("recommendation_id", String(64)),
    Column("deleted_position", BigInteger),
    Column("user_digest", LargeBinary(32)),
    # A deletion keeps the key of the deleted event, so that the event cannot be recorded again.
    Index("feedback_log_key", "user_id", "event_id", unique=True),
    Index("feedback_log_digest", "user_digest"),
    sqlite_autoincrement=True,
)

MARKS = Table(
    "feedback_marks",
    METADATA,
    Column("token", String(32), primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("time_us", BigInteger, nullable=False),
)

AUDIT = Table(
    "feedback_audit",
    METADATA,
    Column("id", POSITION, primary_key=True, autoincrement=True),
    Column("time_us", BigInteger, nullable=False),
    Column("action", String(32), nullable=False),
    Column("actor", String(256), nullable=False),
    Column("user_digest", LargeBinary(32), nullable=False),
    Column("deleted_count", Integer, nullable=False),
    sqlite_autoincrement=True,
)

LIST_COUNTS = Table(
    "experiment_lists",
    METADATA,
    Column("experiment_id", String(8), primary_key=True),
    Column("user_digest", LargeBinary(32), primary_key=True),
    Column("arm", SmallInteger, primary_key=True, autoincrement=False),
    Column("counter_id", String(16), primary_key=True),
    Column("lists", BigInteger, nullable=False),
    Index("experiment_lists_digest", "user_digest"),
)

LIST_COUNTERS = Table(
    "experiment_counters",
    METADATA,
    Column("counter_id", String(16), primary_key=True),
    Column("written_us", BigInteger, nullable=False),
    Column("is_closed", Boolean, nullable=False),
)
