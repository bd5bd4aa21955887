"""`POST /session`, `POST /session/end`: signing in with a key, and out. A form, so that it works by itself.

The cookie is HttpOnly and SameSite=Strict: no script reads it, and no other site's page sends it.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from app.access.keys import KeyNeeded
from app.access.sessions import COOKIE
from app.errors import TooLarge
from app.web.dashboard.shell import PageRoute, render
from app.web.parts import Part

MOST_BYTES = 4096
"""Of the form: a key has 59 characters, an address of ours a few hundred."""

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.post("/session")
async def sign_in(request: Request, runtime: Part) -> Response:
    """Take a key, give the cookie, lead to where its bearer was going."""
    form = parse_qs((await _read(request)).decode("ascii", "replace"))
    there = _within(form.get("next", [""])[-1])
    try:
        cookie = await runtime.keyring.sign_in(form.get("key", [""])[-1].strip())
    except KeyNeeded:
        return render(request, "sign_in.html", status=401, wrong=True, address=there)
    answer = RedirectResponse(there, status_code=303)
    life_s = runtime.keyring.sessions.life_s
    # The browser says whether it came by TLS: before a proxy, nobody else knows.
    is_secure = request.headers.get("origin", "").startswith("https://")
    answer.set_cookie(COOKIE, cookie, max_age=life_s, httponly=True, samesite="strict", secure=is_secure)
    return answer


@router.post("/session/end")
async def sign_out() -> Response:
    """Take the cookie back."""
    answer = RedirectResponse("/", status_code=303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


async def _read(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise TooLarge(f"this form has at most {MOST_BYTES} bytes")
    return body


def _within(address: str) -> str:
    """An address of this service, whatever was given: nobody is led elsewhere from here."""
    parts = urlsplit(address)
    is_ours = (
        not parts.scheme and not parts.netloc and address.startswith("/") and address[1:2] not in ("/", "\\")
    )
    return address if is_ours and address.isprintable() else "/"
