"""The feed: one order of all events of a tenant, whichever process appends them.

The database itself numbers an event as it is appended, so that a release that does not know of positions
takes part: PostgreSQL by the number of the transaction, SQLite by a counter. MySQL is left to the code
(`db.feed.numbering`), because a trigger there may need rights that an operator does not give. Events from
before this migration have no tenant here and are in no feed; their jobs' own lists have them as ever.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
serves_code_of = "0006"

# Each transaction has room for 2^14 events; its events count from 1 in a setting that ends with it. With
# the transaction's number in front, one that begins to write later has the higher positions, always.
NUMBER = """
CREATE FUNCTION reprise_number_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    counted bigint := coalesce(nullif(current_setting('reprise.events', true), '')::bigint, 0) + 1;
BEGIN
    PERFORM set_config('reprise.events', counted::text, true);
    NEW.position := pg_current_xact_id()::text::bigint * 16384 + least(counted, 16383);
    IF NEW.tenant IS NULL THEN
        SELECT jobs.tenant INTO NEW.tenant FROM jobs WHERE jobs.id = NEW.job_id;
    END IF;
    RETURN NEW;
END $$
"""
ON_POSTGRESQL = (
    "CREATE TRIGGER events_feed BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION reprise_number_event()"
)
# No word of the table of jobs: SQLite could not replace that one any more, which is how it alters a table.
ON_SQLITE = """
CREATE TRIGGER events_feed AFTER INSERT ON events BEGIN
    INSERT INTO feed_marks (tenant, position) VALUES ('', 1)
        ON CONFLICT (tenant) DO UPDATE SET position = position + 1;
    UPDATE events SET position = (SELECT position FROM feed_marks WHERE tenant = '')
        WHERE job_id = NEW.job_id AND seq = NEW.seq;
END
"""


def upgrade() -> None:
    op.create_table(
        "feed_marks",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_feed_marks")),
    )
    op.add_column("events", sa.Column("tenant", sa.String(length=64), nullable=True))
    op.add_column("events", sa.Column("position", sa.BigInteger(), nullable=True))
    kind = op.get_bind().dialect.name
    if kind not in ("sqlite", "postgresql"):
        # There, NULL is what an older release appends from now on: it is numbered at the next start.
        op.execute("UPDATE events SET position = 0")
    op.create_index("ix_events_feed", "events", ["tenant", "position"])
    if kind == "postgresql":
        op.execute(NUMBER)
        op.execute(ON_POSTGRESQL)
    elif kind == "sqlite":
        op.execute(ON_SQLITE)


def downgrade() -> None:
    kind = op.get_bind().dialect.name
    if kind == "postgresql":
        op.execute("DROP TRIGGER events_feed ON events")
        op.execute("DROP FUNCTION reprise_number_event()")
    elif kind == "sqlite":
        op.execute("DROP TRIGGER events_feed")
    op.drop_index("ix_events_feed", "events")
    op.drop_column("events", "position")
    op.drop_column("events", "tenant")
    op.drop_table("feed_marks")
