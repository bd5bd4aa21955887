"""The one guarded HTTP door out: `addresses` (where we may go), `door` (going), `landing` (what comes back).

For every address that somebody else chose: a provider's output, a caller's announcement URL.
"""

from app.outbound.door import Download, Outbound, Reply, Rules, decode_data_uri, resolve

__all__ = ["Download", "Outbound", "Reply", "Rules", "decode_data_uri", "resolve"]
