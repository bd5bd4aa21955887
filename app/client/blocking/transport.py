"""One connection pool to one service: sends calls, repeats those that may be, turns failures into errors.

Owns the key, which goes to this service and nowhere else: redirects are not followed. Leaves what a call is
to `calls`, whether it is repeated to `patience`, what an answer means to whoever asked.
"""

# Made from app/client/aio by scripts/make-client. Change it there and run that again.

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

import httpx

from app.client.blocking.waits import sleep
from app.client.call import Call
from app.client.errors import InvalidInput, RepriseError, Unavailable, UnexpectedAnswer, error_of
from app.client.patience import MOST_CUTS, MOST_RETRIES, Patience

MOST_ANSWER_BYTES = 64 * 1024 * 1024
"""Of an answer that is read whole; files come in pieces."""
MOST_PROBLEM_BYTES = 64 * 1024
MOST_CONNECTIONS = 500
"""Each wait and each stream holds one; what is more waits for its turn."""
POOL_S = 600.0
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

Body = Callable[[], Iterator[bytes]]
"""Makes a request's body anew for each try."""


class _Bearer(httpx.Auth):
    """The key, where no representation of a client or a request shows it."""

    def __init__(self, api_key: str) -> None:
        self._api_key = api_key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        yield request


class Transport:
    """Made by the client, which closes it."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        timeout_s: float,
        retry_for_s: float,
        http: httpx.Client | None = None,
    ) -> None:
        """`http` is another's, which has its own key: used in place of one that is made here."""
        self.base_url = base_url
        self._timeout_s = timeout_s
        self._retry_for_s = retry_for_s
        self._http = http or httpx.Client(
            auth=_Bearer(api_key) if api_key else None,
            headers={"User-Agent": "reprise-client", "Accept": "application/json"},
            follow_redirects=False,
            limits=httpx.Limits(max_connections=MOST_CONNECTIONS, max_keepalive_connections=20),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    def close(self) -> None:
        self._http.close()

    def patience(self) -> Patience:
        """For one call."""
        return Patience(within_s=self._retry_for_s, retries=MOST_RETRIES)

    def long_patience(self) -> Patience:
        """For what goes on from where it was cut."""
        return Patience(within_s=self._retry_for_s, retries=MOST_CUTS)

    def ask(self, call: Call, body: Body | None = None) -> bytes:
        """The answer's body. Raises RepriseError, after the retries that the call allows."""
        patience = self.patience()
        while True:
            try:
                return self.ask_once(call, body)
            except RepriseError as exc:
                wait_s = patience.wait_s(exc, repeatable=call.is_repeatable)
                if wait_s is None:
                    raise
            sleep(wait_s)

    def ask_once(self, call: Call, body: Body | None = None) -> bytes:
        """The same in one try, for those who have their own patience."""
        with self.open(call, body) as response:
            return _read(response, MOST_ANSWER_BYTES)

    @contextmanager
    def open(self, call: Call, body: Body | None = None) -> Iterator[httpx.Response]:
        """One try: an answer that is a success, its body still to be read. Raises RepriseError."""
        silence_s = self._timeout_s + call.may_take_s
        request = self._http.build_request(
            call.method,
            self.base_url + call.path,
            params=dict(call.params) or None,
            headers=dict(call.headers),
            content=body() if body else call.content,
            timeout=httpx.Timeout(self._timeout_s, read=silence_s, pool=POOL_S),
        )
        try:
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    raise _problem(response)
                yield response
            finally:
                response.close()
        except httpx.TransportError as exc:
            raise self._lost(exc) from exc
        except httpx.DecodingError as exc:
            raise UnexpectedAnswer(f"the answer cannot be decoded: {exc}") from exc

    def _lost(self, exc: httpx.TransportError) -> RepriseError:
        if isinstance(exc, httpx.LocalProtocolError):
            return InvalidInput(f"what is sent is no HTTP request: {exc}")
        name = type(exc).__name__
        lost = Unavailable(f"{self.base_url}: {name}: {exc}" if str(exc) else f"{self.base_url}: {name}")
        lost.code = "unreachable"
        lost.nothing_done = isinstance(exc, _NEVER_SENT)
        return lost


def _problem(response: httpx.Response) -> RepriseError:
    try:
        body = _read(response, MOST_PROBLEM_BYTES)
    except UnexpectedAnswer:
        body = b""
    return error_of(response.status_code, response.headers, body)


def _read(response: httpx.Response, most_bytes: int) -> bytes:
    pieces, size = [], 0
    for piece in response.iter_bytes():
        size += len(piece)
        if size > most_bytes:
            raise UnexpectedAnswer(f"an answer of more than {most_bytes} bytes", status=response.status_code)
        pieces.append(piece)
    return b"".join(pieces)
