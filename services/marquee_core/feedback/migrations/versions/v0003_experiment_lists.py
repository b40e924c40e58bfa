"""Creates the tables that count the lists of experiments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "experiment_lists",
        sa.Column("experiment_id", sa.String(8), primary_key=True),
        sa.Column("user_digest", sa.LargeBinary(32), primary_key=True),
        sa.Column("arm", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("counter_id", sa.String(16), primary_key=True),
        sa.Column("lists", sa.BigInteger, nullable=False),
    )
    op.create_index("experiment_lists_digest", "experiment_lists", ["user_digest"])
    op.create_table(
        "experiment_counters",
        sa.Column("counter_id", sa.String(16), primary_key=True),
        sa.Column("written_us", sa.BigInteger, nullable=False),
        sa.Column("is_closed", sa.Boolean, nullable=False),
    )


def downgrade() -> None:
    """Drops the tables."""
    op.drop_table("experiment_counters")
    op.drop_table("experiment_lists")
