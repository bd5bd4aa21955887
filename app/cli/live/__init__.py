"""`reprise tail`, `listen` and `trigger`: watch a service from a terminal, and play its provider.

`streaming` keeps a stream up over cuts and restarts; the commands say what is done with its messages.
"""

from app.cli.live.listen import listen
from app.cli.live.tail import tail
from app.cli.live.trigger import trigger

__all__ = ["listen", "tail", "trigger"]
