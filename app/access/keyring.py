"""Which caller a key proves: looked up by its SHA-256, remembered for a few seconds.

Promises: a key that is used reads no row but once in ACCESS_CACHE_S, and is refused at the latest so long
after it was revoked, in every process; an unknown, a revoked and an expired key cost the same and are told
apart by nobody; what is remembered is bounded. While no key was ever made the house is open, to whoever
reaches it; whether that is this machine alone is `app.serve`'s to see to.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from app.access.callers import OPEN_HOUSE, Caller, Scope
from app.access.keys import KeyNeeded, digest_of, looks_like_key, read_bearer
from app.access.sessions import Sessions
from db.access.keys import find_key_of, has_access_keys, note_key_used
from db.session import Database, DatabaseUnavailable
from db.tables import AccessKey

log = structlog.get_logger()

MOST_REMEMBERED = 10_000
"""Keys; and as many again of what is no key."""
HOUSE_LOOK_S = 1.0
"""How long a first key that another process has made may go unseen."""
USED_EVERY = timedelta(minutes=1)
"""How coarse `last_used_at` is: a write a minute for each key that is used."""
_KNOWN_SCOPES = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class _Looked:
    """A look at the rows: the key that was found, if any."""

    key: AccessKey | None
    at_s: float


class Keyring:
    """The keys as this process knows them. One a runtime."""

    def __init__(
        self, *, database: Database, now: Callable[[], datetime], life_s: float, sessions: Sessions
    ) -> None:
        """`now` tells the time that the rows go by; `life_s` how long a look is believed."""
        self._database = database
        self.sessions = sessions
        self._now = now
        self._life_s = life_s
        self._known: dict[str, _Looked] = {}
        self._unknown: dict[str, _Looked] = {}
        self._asking: dict[str, asyncio.Task[_Looked]] = {}
        self._noted: dict[str, datetime] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._may_be_open = True
        self._house_seen_s = -math.inf

    async def prove(self, authorization: str | None) -> Caller:
        """Whoever sent this `Authorization` header. Raises KeyNeeded, DatabaseUnavailable."""
        text = read_bearer(authorization)
        # In an open house any other header is somebody else's business, such as a proxy's.
        if (text is None or not text.startswith("rp_")) and await self.is_open():
            return OPEN_HOUSE
        return await self._prove(digest_of(text or ""), is_known=text is not None and looks_like_key(text))

    async def prove_session(self, cookie: str) -> Caller:
        """Whoever signed in and got this cookie. Raises KeyNeeded, DatabaseUnavailable."""
        digest = self.sessions.read(cookie, now=self._now())
        return await self._prove(digest or "", is_known=digest is not None)

    async def sign_in(self, text: str) -> str:
        """A cookie for whoever shows this key. Raises KeyNeeded, DatabaseUnavailable."""
        digest = digest_of(text)
        await self._prove(digest, is_known=looks_like_key(text))
        return self.sessions.begin(digest, now=self._now())

    async def _prove(self, digest: str, *, is_known: bool) -> Caller:
        found = await self._look(digest) if is_known else None
        key = found.key if found else None
        is_same = hmac.compare_digest(key.digest if key else _NOBODY, digest)
        if key is None or not is_same or not _holds(key, self._now()):
            raise KeyNeeded
        self._note_used(key)
        scopes = frozenset(Scope(each) for each in key.scopes if each in _KNOWN_SCOPES)
        return Caller(key.tenant, scopes, key.id)

    async def is_open(self) -> bool:
        """Whether no key was ever made: then none is needed. Raises DatabaseUnavailable."""
        if self._may_be_open and time.monotonic() - self._house_seen_s >= HOUSE_LOOK_S:
            async with self._database.reading() as tx:
                if await has_access_keys(tx):
                    self.close_house()
            self._house_seen_s = time.monotonic()
        return self._may_be_open

    def close_house(self) -> None:
        """From now on a key is needed here, whatever the rows say."""
        self._may_be_open = False

    def forget(self) -> None:
        """Look at the rows again for each key: one was changed by this process."""
        self._known.clear()
        self._unknown.clear()
        # A look that has begun may have come before the change.
        self._asking.clear()

    async def aclose(self) -> None:
        """Returns once the uses that are being written down are written."""
        await asyncio.gather(*self._writing, *self._asking.values(), return_exceptions=True)

    async def _look(self, digest: str) -> _Looked:
        """The newest look at this key; those who ask for it at once share one."""
        looked = self._known.get(digest) or self._unknown.get(digest)
        if looked is not None and time.monotonic() - looked.at_s < self._life_s:
            return looked
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.create_task(self._read(digest))
        # Shielded: a caller that leaves must not take the answer of the others along.
        return await asyncio.shield(task)

    async def _read(self, digest: str) -> _Looked:
        me = asyncio.current_task()
        try:
            # Before the reading: what was seen is as old as its beginning.
            at_s = time.monotonic()
            async with self._database.reading() as tx:
                looked = _Looked(await find_key_of(tx, digest), at_s)
            if self._asking.get(digest) is me:
                self._remember(digest, looked)
            return looked
        finally:
            if self._asking.get(digest) is me:
                del self._asking[digest]

    def _remember(self, digest: str, looked: _Looked) -> None:
        # Apart, so that a flood of made-up keys displaces none that holds.
        self._unknown.pop(digest, None)
        self._known.pop(digest, None)
        place = self._known if looked.key else self._unknown
        while len(place) >= MOST_REMEMBERED:
            del place[next(iter(place))]
        place[digest] = looked
        if looked.key:
            self.close_house()

    def _note_used(self, key: AccessKey) -> None:
        """Write the use down beside the request, once in `USED_EVERY`."""
        now, last = self._now(), self._noted.get(key.id) or key.last_used_at
        if last is not None and now - last < USED_EVERY:
            return
        if len(self._noted) >= MOST_REMEMBERED:
            self._noted.clear()
        self._noted[key.id] = now
        task = asyncio.create_task(self._write_used(key.id, now))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write_used(self, key_id: str, at: datetime) -> None:
        try:
            async with self._database.transaction() as tx:
                await note_key_used(tx, key_id, at=at, unless_since=at - USED_EVERY)
        except DatabaseUnavailable as exc:
            log.warning("key.use_not_noted", key_id=key_id, reason=str(exc))


_NOBODY = digest_of("")


def _holds(key: AccessKey, now: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)
