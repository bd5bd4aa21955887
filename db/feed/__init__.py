"""The feed: all events of a tenant in one order that every reader sees alike, with a position to go on from.

A position is a whole number that only grows. Promises: who has read up to a position and goes on from there
gets every event that was committed since, once, whichever process wrote it and in whatever order the
transactions ended; and where events between have been deleted with their jobs, the reader is told.

Numbers are given by the database as an event is appended. PostgreSQL: the transaction's own number comes
first in it, and nothing is read that is not older than the oldest transaction under way, so nothing can turn
up behind a reader. SQLite: one counter, since there is one writer. MySQL and MariaDB: the same counter, taken
last in each transaction and held to its end (`numbering`), so that they end in the order of their numbers.
Positions have gaps. The number within a job (`seq`) has none, and nothing here changes it.
"""

from db.feed.floors import raise_floors
from db.feed.numbering import number_appended, settle_feed
from db.feed.reading import FeedPage, FeedRow, read_feed, read_head, read_start

__all__ = [
    "FeedPage",
    "FeedRow",
    "number_appended",
    "raise_floors",
    "read_feed",
    "read_head",
    "read_start",
    "settle_feed",
]
