"""Access keys, the audit log, and idempotency keys for each tenant apart."""

import sqlalchemy as sa
from alembic import op

from db.tables import UtcDateTime

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
serves_code_of = "0006"
"""A release without these tables asks for no keys, and its idempotency keys are those of one tenant."""

KEPT = "key, fingerprint, job_id, created_at"
QUOTED = "`key`, fingerprint, job_id, created_at"


def upgrade() -> None:
    op.create_table(
        "access_keys",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("prefix", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("last_used_at", UtcDateTime(), nullable=True),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_access_keys_digest")),
    )
    op.create_index("ix_access_keys_tenant_id", "access_keys", ["tenant", "id"])
    op.create_table(
        "audit",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("act", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_tenant_id", "audit", ["tenant", "id"])
    op.create_index(op.f("ix_audit_at"), "audit", ["at"])
    # A primary key is changed nowhere alike: the rows of a day go over by way of a copy.
    _set_aside()
    _make(
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("open_until", UtcDateTime(), nullable=True),
        keys=("tenant", "key"),
    )
    _take_back()


def downgrade() -> None:
    # Two tenants may have the same key: only those of the one tenant that older releases know stay.
    op.execute("DELETE FROM idempotency_keys WHERE tenant <> 'default' OR open_until IS NOT NULL")
    _set_aside()
    _make(keys=("key",))
    _take_back()
    op.drop_table("audit")
    op.drop_table("access_keys")


def _set_aside() -> None:
    op.execute(f"CREATE TABLE idempotency_aside AS SELECT {_columns()} FROM idempotency_keys")  # noqa: S608 - our names
    op.drop_table("idempotency_keys")


def _make(*more: sa.Column[object], keys: tuple[str, ...]) -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        *more,
        sa.PrimaryKeyConstraint(*keys, name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"])


def _take_back() -> None:
    names = _columns()
    op.execute(f"INSERT INTO idempotency_keys ({names}) SELECT {names} FROM idempotency_aside")  # noqa: S608
    op.drop_table("idempotency_aside")


def _columns() -> str:
    return QUOTED if op.get_bind().dialect.name in ("mysql", "mariadb") else KEPT
