"""Puts the dashboard on the app: what it loads, signing in, and one router a page."""

from __future__ import annotations

from fastapi import FastAPI

from app.web.dashboard import files, session
from app.web.dashboard.pages import job, ledger, lyrics, performances, queue, songs, status, voices

ROUTERS = (
    files.router,
    session.router,
    queue.router,
    job.router,
    ledger.router,
    status.router,
    songs.router,
    voices.router,
    performances.router,
    lyrics.router,
)


def add_dashboard(app: FastAPI) -> None:
    """Add all of it."""
    files.shelf()
    for router in ROUTERS:
        app.include_router(router)
