"""What the database can say of the line and of itself: read when somebody looks, changing nothing.

Promises: what a question costs depends on the rows that wait, never on those that have ended.
"""

from db.figures.queues import QueueFigure, read_clock, read_queues

__all__ = ["QueueFigure", "read_clock", "read_queues"]
