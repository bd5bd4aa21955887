"""Ids: a prefix that names the table and a UUIDv7 (RFC 9562 §5.7), so that they sort by time of making."""

from uuid_utils import uuid7


def make_id(prefix: str) -> str:
    """Such as `job_019a9c1f2c5e7d1b8f3a…`: prefix, underscore, 32 hex digits."""
    return f"{prefix}_{uuid7().hex}"
