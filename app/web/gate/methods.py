"""HEAD wherever there is GET (RFC 9110 §9.3.2): the same head, and no body.

The route is asked as for GET. Once its head has been sent, it is told that the caller has gone: whatever
would stream on, stops. No header of a request changes its method.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadAsGet:
    """Answers HEAD by the route for GET; `content` of assets has a way of its own, that reads nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"].endswith("/content"):
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def receive_until_begun() -> Message:
            return {"type": "http.disconnect"} if has_begun else await receive()

        async def send_head(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        # A stream of events never ends by itself: whoever asks for its head gets that of the list.
        headers = [(name, value) for name, value in scope["headers"] if name != b"accept"]
        await self._app({**scope, "method": "GET", "headers": headers}, receive_until_begun, send_head)
