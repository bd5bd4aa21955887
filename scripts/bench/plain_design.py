"""The plain design, for comparison: what one would write first, without a queue and without an inbox.

A FastAPI route verifies the webhook, opens a SQLModel session, inserts a row and commits; after the reply a
background task, in a thread as FastAPI does it, fetches the clip, blocks on ffmpeg, and marks the row.
SQLite in WAL mode with synchronous=FULL, the same uvicorn settings.

Usage: plain_design.py FOLDER; says its port on stdout.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import uvicorn
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request
from ground import TRIM
from sqlalchemy import event
from sqlmodel import Field, Session, SQLModel, create_engine
from webhooks import SECRET

from app.audio import default_binary

folder = Path(sys.argv[1])
engine = create_engine(f"sqlite:///{folder}/plain.db")
app = FastAPI()


class Hook(SQLModel, table=True):
    id: str = Field(primary_key=True)
    output: str
    is_stored: bool = False


@event.listens_for(engine, "connect")
def _tune(connection, _record) -> None:  # type: ignore[no-untyped-def]
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


@app.post("/v1/webhooks/replicate/{attempt_id}")
async def receive(attempt_id: str, request: Request, tasks: BackgroundTasks) -> dict[str, str]:
    body = await request.body()
    name, stamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = hmac.new(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
    given = request.headers["webhook-signature"].removeprefix("v1,")
    if not hmac.compare_digest(base64.b64encode(signed).decode(), given):
        raise HTTPException(401)
    news = json.loads(body)
    with Session(engine) as session:
        session.merge(Hook(id=name, output=news.get("output") or ""))
        session.commit()
    if news["status"] == "succeeded":
        tasks.add_task(finish, name, attempt_id, news["output"])
    return {"status": "ok"}


def finish(name: str, attempt_id: str, output: str) -> None:
    raw, stored = folder / f"{attempt_id}.raw", folder / "stored" / f"{attempt_id}.mp3"
    raw.write_bytes(urllib.request.urlopen(output, timeout=30).read())
    argv = [default_binary(), "-v", "error", "-nostdin", "-y", "-i", raw, "-af", TRIM]
    subprocess.run([*argv, "-c:a", "libmp3lame", "-b:a", "192k", "-f", "mp3", stored], check=True)
    raw.unlink()
    with Session(engine) as session:
        hook = session.get(Hook, name)
        assert hook is not None
        hook.is_stored = True
        session.commit()


def main() -> None:
    (folder / "stored").mkdir(exist_ok=True)
    SQLModel.metadata.create_all(engine)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="critical", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
