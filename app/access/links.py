"""Links to stored assets: whoever holds one may fetch those bytes until it expires, and nothing else.

A link is an HMAC-SHA-256 over the method, the path, the tenant and the expiry, so none of them can be changed
without the secret. Promises: checked in constant time; two secrets prove (`reprise links rotate` makes a new
one, the one before stays good until the next rotation); every process follows a rotation within
`LOOK_EVERY_S`, and at once where it meets a link that it does not know. Leaves whether the tenant still has
the asset to whoever serves it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets as randomness
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from urllib.parse import quote

from app.access.callers import OPEN_HOUSE
from app.access.trail import Act, note_act
from app.errors import Forbidden, LinkExpired
from db.secrets import claim_secrets, find_secrets, rotate_secret
from db.session import Database, DatabaseUnavailable, Transaction

LOOK_EVERY_S = 30.0
"""How long a process may go on with secrets that another one has rotated."""
LOOK_AT_MOST_EVERY_S = 1.0
"""However many strange links come: each would cost a read."""
SECRET = "links"  # noqa: S105 - the name of its row


class Links:
    """Makes links and checks them. `secrets` are one or two, the first signs; `life_s` is a link's life."""

    def __init__(
        self,
        *,
        secrets: Sequence[str],
        life_s: int,
        read: Callable[[], Awaitable[Sequence[str]]] | None = None,
    ) -> None:
        """`read` asks for the secrets as they are now."""
        self._secrets = tuple(secrets)
        self._life_s = life_s
        self._read = read
        self._looked_at = time.monotonic()

    def url(self, asset_id: str, *, tenant: str) -> str:
        """A path with `tenant`, `expires` (unix seconds) and `signature`, relative to the service's address.

        Good for GET and HEAD.
        """
        expires = int(time.time()) + self._life_s
        signature = _sign(self._secrets[0], "GET", _path(asset_id), tenant, expires)
        return f"{_path(asset_id)}?tenant={quote(tenant, safe='')}&expires={expires}&signature={signature}"

    async def check(
        self, asset_id: str, *, tenant: str, expires: str, signature: str, method: str = "GET"
    ) -> None:
        """Raises Forbidden when the link was altered or its secret is gone, LinkExpired when its time is."""
        given = int(expires) if expires.isascii() and expires.isdigit() and len(expires) <= 12 else 0
        signed = ("GET" if method == "HEAD" else method, _path(asset_id), tenant, given)
        if not self._is_ours(signature, *signed):
            await self.look(at_most_every_s=LOOK_AT_MOST_EVERY_S)
            if not self._is_ours(signature, *signed):
                raise Forbidden("the link is not valid")
        if given < time.time():
            raise LinkExpired("the link has expired")

    async def look(self, *, at_most_every_s: float = 0.0) -> None:
        """Take up the secrets as they are now; without an answer those from before stay."""
        if self._read is None or time.monotonic() - self._looked_at < at_most_every_s:
            return
        self._looked_at = time.monotonic()
        with suppress(DatabaseUnavailable):
            self._secrets = tuple(await self._read()) or self._secrets

    def _is_ours(self, signature: str, method: str, path: str, tenant: str, expires: int) -> bool:
        # No early leave: the time must not tell which secret was right.
        matched = False
        for secret in self._secrets:
            ours = _sign(secret, method, path, tenant, expires).encode()
            matched |= hmac.compare_digest(ours, signature.encode("utf-8", "surrogatepass"))
        return matched


@asynccontextmanager
async def keeping_links(database: Database, *, life_s: int) -> AsyncIterator[Links]:
    """Links under the installation's secrets, followed through rotations until the block ends."""

    async def claim(tx: Transaction) -> tuple[str, ...]:
        return await claim_secrets(tx, SECRET, randomness.token_hex(32), now=await tx.now())

    async def read() -> tuple[str, ...]:
        async with database.reading() as tx:
            return await find_secrets(tx, SECRET)

    links = Links(secrets=await database.transact(claim), life_s=life_s, read=read)
    looking = asyncio.create_task(_keep_looking(links))
    try:
        yield links
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def rotate_links(database: Database, *, at_once: bool) -> None:
    """A new secret signs. The one until now still proves, unless `at_once`; the one before it does not."""
    async with database.transaction() as tx:
        fresh, now = randomness.token_hex(32), await tx.now()
        await rotate_secret(tx, SECRET, fresh, now=now, keep_old=not at_once)
        # By whoever has this machine: no key is needed for it, and it is every tenant's.
        await note_act(tx, OPEN_HOUSE, Act.LINKS_ROTATED, SECRET, at=now)


async def _keep_looking(links: Links) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        await links.look()


def _path(asset_id: str) -> str:
    return f"/v1/assets/{asset_id}/content"


def _sign(secret: str, method: str, path: str, tenant: str, expires: int) -> str:
    # JSON, so that no two different lists make one text.
    text = json.dumps(["link", method, path, tenant, expires])
    return hmac.new(secret.encode(), text.encode(), sha256).hexdigest()
