"""The same ingest and the same step with DBOS: run by `peers.py` in the peers' own environment.

The route verifies the signature and starts a workflow whose id is the message's, with the body as its
input. DBOS has it in PostgreSQL when the call returns, which is the durable row and the deduplication in
one; the route answers. The workflow's one step inserts the delivery and settles it, in a transaction
through an asyncpg pool. One process serves and works, as DBOS means it.

Usage: peer_dbos.py serve; the places come from PEER_DSN and PEER_SYSTEM_DSN.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from dbos import DBOS, DBOSConfig, SetWorkflowID
from peer_ground import INSERT, read_webhook, serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

config: DBOSConfig = {
    "name": "peer",
    "system_database_url": os.environ["PEER_SYSTEM_DSN"],
    "log_level": "ERROR",
    "run_admin_server": False,
}
DBOS(config=config)
_pool: list[Any] = []


@DBOS.step()
async def settle(name: str, body: str) -> None:
    async with _pool[0].acquire() as connection, connection.transaction():
        await connection.fetchval(INSERT, name, body.encode())
        await connection.execute("UPDATE peer_deliveries SET settled_at = now() WHERE id = $1", name)


@DBOS.workflow()
async def apply(name: str, body: str) -> None:
    await settle(name, body)


async def receive(request: Request) -> Response:
    name, body = await read_webhook(request)
    with SetWorkflowID(name):
        await DBOS.start_workflow_async(apply, name, body.decode())
    return Response(status_code=200)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    _pool.append(await asyncpg.create_pool(os.environ["PEER_DSN"], min_size=10, max_size=10))
    DBOS.launch()
    yield


app = Starlette(routes=[Route("/hook", receive, methods=["POST"])], lifespan=lifespan)

if __name__ == "__main__" and sys.argv[1:] == ["serve"]:
    serve(app)
