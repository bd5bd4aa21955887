"""The namespace `/jobs`: what happens to a tenant's jobs, told to whoever subscribed.

Reading order: `desk` (what clients ask), `fanout` (who is told what, and when), `told` (in which words).
"""

from app.web.socket.jobs.desk import JobsNamespace
from app.web.socket.jobs.subscriptions import FanoutLimits

__all__ = ["FanoutLimits", "JobsNamespace"]
