"""Creates the log and the audit table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_POSITION = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Creates the tables and indexes."""
    op.create_table(
        "feedback_log",
        sa.Column("position", _POSITION, primary_key=True, autoincrement=True),
        sa.Column("type", sa.SmallInteger, nullable=False),
        sa.Column("user_id", sa.String(256)),
        sa.Column("item_id", sa.String(256)),
        sa.Column("kind", sa.SmallInteger),
        sa.Column("value", sa.Double),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("event_id", sa.String(128)),
        sa.Column("recommendation_id", sa.String(64)),
        sa.Column("deleted_position", sa.BigInteger),
        sa.Column("user_digest", sa.LargeBinary(32)),
        sqlite_autoincrement=True,
    )
    op.create_index("feedback_log_key", "feedback_log", ["user_id", "event_id"], unique=True)
    op.create_index("feedback_log_time", "feedback_log", ["user_id", "time_us", "position"])
    op.create_index("feedback_log_digest", "feedback_log", ["user_digest"])
    op.create_table(
        "feedback_audit",
        sa.Column("id", _POSITION, primary_key=True, autoincrement=True),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(256), nullable=False),
        sa.Column("user_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("deleted_count", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drops the tables."""
    op.drop_table("feedback_audit")
    op.drop_table("feedback_log")
