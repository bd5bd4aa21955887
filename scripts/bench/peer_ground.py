"""What both peers have in common: the webhook read and verified, the row, uvicorn with our settings.

Imported in the peers' own environment, which has nothing of ours.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
from typing import Any

import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request

KEY = base64.b64decode(os.environ["PEER_SECRET"].removeprefix("whsec_"))
INSERT = (
    "INSERT INTO peer_deliveries (id, body, received_at) VALUES ($1, $2, now())"
    " ON CONFLICT DO NOTHING RETURNING id"
)


async def read_webhook(request: Request) -> tuple[str, bytes]:
    body = await request.body()
    name, stamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    signed = hmac.new(KEY, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
    given = request.headers["webhook-signature"].removeprefix("v1,")
    if not hmac.compare_digest(base64.b64encode(signed).decode(), given):
        raise HTTPException(401)
    return name, body


def serve(app: Any) -> None:
    """On a free port, which is said on stdout."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", log_config=None, access_log=False, timeout_keep_alive=20
    )
    uvicorn.Server(config).run(sockets=[listener])
