"""The headers that tell a browser what answers of ours may not be used for.

On every answer, the webhooks' included: a table of constants made once, so that an answer costs one list
more. What an answer says for itself (an asset's `Cache-Control`) stays as it is.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.settings import Settings

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""For pages: everything from here, no inline script or style. Swagger UI's pictures are `data:`."""
_DATA_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
"""For everything else: opened by itself, a stored file or a JSON text can do nothing."""
_HSTS = "max-age=31536000"

Headers = list[tuple[bytes, bytes]]


def page_policy(*styles: str) -> str:
    """The policy of pages; `styles` are hashes of style sheets that libraries write into a page."""
    allowed = "".join(f" '{each}'" for each in styles)
    return _PAGE_POLICY.replace("style-src 'self'", f"style-src 'self'{allowed}")


class SecurityHeaders:
    """Adds them to every answer that does not have its own."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        # Pages of allowed origins may play what is stored here; without any, nobody else's may.
        policy = "cross-origin" if settings.cors_allowed_origins else "same-origin"
        plain = {
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": policy,
            "x-frame-options": "DENY",
            "cache-control": "no-store",
        }
        if settings.public_url and settings.public_url.startswith("https://"):
            plain["strict-transport-security"] = _HSTS
        self._page = _encoded({**plain, "content-security-policy": _PAGE_POLICY})
        self._data = _encoded({**plain, "content-security-policy": _DATA_POLICY})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._completed(list(message.get("headers", ())))
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _completed(self, headers: Headers) -> Headers:
        said = {name.lower(): value for name, value in headers}
        is_page = said.get(b"content-type", b"").startswith(b"text/html")
        added = self._page if is_page else self._data
        return headers + [each for each in added if each[0] not in said]


def _encoded(table: dict[str, str]) -> Headers:
    return [(name.encode("ascii"), value.encode("ascii")) for name, value in table.items()]
