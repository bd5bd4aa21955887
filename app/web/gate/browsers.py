"""Browsers that signed in: when their cookie counts, and when a page is what they want. Pure.

A browser sends a cookie along with whatever any page makes it ask. Ours is `SameSite=Strict`, which keeps
other sites out; but another port of the same machine is the same site. So it counts only where the browser
says that a page of this very origin asks, or, for reading, that a person did (the address bar, a bookmark).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from app.access.sessions import COOKIE

_READING = frozenset({"GET", "HEAD"})
_NOT_PAGES = ("/v1/", "/api/", "/socket.io", "/metrics")


def find_session(connection: HTTPConnection) -> str | None:
    """The cookie of a session, where it may be honoured for this request."""
    cookie = connection.cookies.get(COOKIE)
    return cookie if cookie and _is_our_own(connection) else None


def wants_page(connection: HTTPConnection) -> bool:
    """Whether a person opens this in a browser, rather than a program."""
    scope = connection.scope
    return (
        scope["type"] == "http"
        and scope["method"] in _READING
        and not scope["path"].startswith(_NOT_PAGES)
        and "text/html" in connection.headers.get("accept", "")
    )


def _is_our_own(connection: HTTPConnection) -> bool:
    headers = connection.headers
    origin, asked_by = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        return False
    if asked_by is not None:
        return asked_by == "same-origin" or (asked_by == "none" and _is_reading(connection))
    # A browser that says nothing of the page is an old one. It names the origin of what changes something.
    return origin is not None or _is_reading(connection)


def _is_reading(connection: HTTPConnection) -> bool:
    # A socket is opened with a GET, and then does whatever its messages say.
    return connection.scope["type"] == "http" and connection.scope["method"] in _READING
