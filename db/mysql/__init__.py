"""MySQL and MariaDB, for one process: connections, who may work, and what the server must be like.

Owns the session settings that make such a server keep the promises of `db.session` (strict mode, UTC, READ
COMMITTED, limits on statements and locks), for the pool as for connections beside it. The rows, and the
hints and items that go with them, are as on SQLite: in the memory of the one process that works.
"""
