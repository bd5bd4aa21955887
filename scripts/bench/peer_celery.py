"""The same ingest and the same step with Celery and Redis: run by `peers.py` in the peers' own
environment.

The route verifies the signature and inserts the delivery into PostgreSQL through an asyncpg pool, one
commit a webhook (ON CONFLICT DO NOTHING); then it enqueues a task that carries the row's id and answers.
Redis syncs its log at every write (`appendfsync always`), as PostgreSQL does. The task reads the delivery
and settles it, in one transaction on a kept psycopg connection. One prefork process, acks late.

Usage: celery -A peer_celery:celery worker, or peer_celery.py serve; PEER_DSN and PEER_REDIS say where.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import psycopg
from celery import Celery
from peer_ground import INSERT, read_webhook, serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

DSN = os.environ["PEER_DSN"]
celery = Celery("peer", broker=os.environ["PEER_REDIS"])
celery.conf.update(
    task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True, worker_hijack_root_logger=False,
)  # fmt: skip
READ = "SELECT body FROM peer_deliveries WHERE id = %s AND settled_at IS NULL"
_kept: list[Any] = []


@celery.task(name="apply")
def apply(delivery_id: str) -> None:
    if not _kept:
        _kept.append(psycopg.connect(DSN))
    with _kept[0].transaction(), _kept[0].cursor() as cursor:
        cursor.execute(READ, (delivery_id,))
        if cursor.fetchone() is not None:
            cursor.execute("UPDATE peer_deliveries SET settled_at = now() WHERE id = %s", (delivery_id,))


async def receive(request: Request) -> Response:
    name, body = await read_webhook(request)
    inserted = await request.app.state.pool.fetchval(INSERT, name, body)
    if inserted is not None:
        # Straight from the loop: a thread for each would cost it more than it waits for Redis here.
        apply.delay(name)
    return Response(status_code=200)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.pool = await asyncpg.create_pool(DSN, min_size=20, max_size=20)
    yield


app = Starlette(routes=[Route("/hook", receive, methods=["POST"])], lifespan=lifespan)

if __name__ == "__main__" and sys.argv[1:] == ["serve"]:
    serve(app)
