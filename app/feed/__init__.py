"""The feed of all events of a tenant, as pages and as a stream that goes on where the last one was cut.

Owns who gets what and when: filters, pauses, the bounds of a reader that is slow. Promises: a stream tells
every event after its position once, in order, until it says why it ends (`Closed`); where events have been
deleted before they were read it says so (`Reset`) and goes on from a position from which the jobs as they
stand and what follows are the whole truth. Any number of streams cost one read a pause, not one an event,
and none holds more in memory than the page it is telling. Leaves the order itself to `db.feed`.
"""

from app.feed.arrivals import Arrivals
from app.feed.follow import Feed
from app.feed.stream import FeedLimits
from app.feed.told import Closed, End, Moved, Opened, Page, Reset, Told, Wanted

__all__ = [
    "Arrivals",
    "Closed",
    "End",
    "Feed",
    "FeedLimits",
    "Moved",
    "Opened",
    "Page",
    "Reset",
    "Told",
    "Wanted",
]
