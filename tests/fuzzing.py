"""What is fuzzed, and what must hold of any input: shared by `scripts/fuzz` and the test suite.

A target is a hypothesis test without its settings: it takes anything at all and raises only when a promise is
broken. Foreign bytes meet seven readers here: webhook signatures, ranges, ffmpeg's arguments, providers'
replies, addresses, links and searches.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from app.access.links import Links
from app.audio import Recipe, keep_argv, prove_argv, trim_argv
from app.audio.clips import CONTAINERS
from app.errors import Forbidden, InvalidQuery, OutputRejected, ProviderBadResponse, ProviderUnavailable
from app.outbound.addresses import Guard, refusal
from app.outbound.selftest import SPELLINGS
from app.provider.base import DownloadRules
from app.provider.reading import read_problem, read_reply, read_retry_after_s
from app.provider.signature import BadSignature, WebhookSecrets
from app.search.language import MOST_CHARS, parse, spell
from app.web.content.ranges import MOST_PIECES, Unsatisfiable, read_range

Target = Callable[[], Any]

SECRETS = WebhookSecrets(["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"])
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIGNED_AT = int(NOW.timestamp())
ANY = st.text(st.characters(), max_size=60)


def _edited(base: str) -> st.SearchStrategy[str]:
    """The text with a stretch of it replaced, doubled or left out."""
    places = st.tuples(st.integers(0, len(base)), st.integers(0, len(base)), ANY | st.just(""))
    return places.map(lambda cut: base[: min(cut[:2])] + cut[2] + base[max(cut[:2]) :])


@given(
    message_id=ANY | _edited("msg_1"),
    timestamp=ANY | _edited(str(SIGNED_AT)),
    signature=ANY | _edited(SECRETS.sign("msg_1", SIGNED_AT, b"{}")),
    body=st.binary(max_size=60) | st.just(b"{}"),
)
def signature(message_id: str, timestamp: str, signature: str, body: bytes) -> None:
    """A message is refused in one way, or is the one that was signed."""
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    try:
        proven = SECRETS.verify(headers, body, now=NOW, tolerance_s=300)
    except BadSignature:
        return
    assert (proven, timestamp, body) == ("msg_1", str(SIGNED_AT), b"{}")
    assert SECRETS.sign("msg_1", SIGNED_AT, b"{}") in signature


@given(value=ANY | _edited("bytes=0-5,10-20,-3"), size=st.integers(1, 1 << 40))
def ranges(value: str, size: int) -> None:
    """Pieces of the file that do not overlap, few of them, or none."""
    try:
        pieces = read_range(value, size)
    except Unsatisfiable:
        return
    assert len(pieces) <= MOST_PIECES
    last = 0
    for piece in sorted(pieces, key=lambda each: each.start):
        assert last <= piece.start < piece.end <= size
        last = piece.end


@given(
    name=ANY | _edited("speech.fetched"), container=ANY | st.sampled_from(sorted(CONTAINERS)), threshold=ANY
)
def arguments(name: str, container: str, threshold: str) -> None:
    """What reaches ffmpeg is made of our words; what is not raises ValueError before."""
    source = Path("/tmp/job") / name
    for build in (trim_argv, keep_argv):
        for decibels in (threshold, "-60dB"):
            try:
                argv = build(
                    "ffmpeg", source, Path("/tmp/job/out"), Recipe(container, "", decibels, 60, 1000)
                )
            except ValueError:
                continue
            assert source.name.isascii()
            assert not {"|", "\n", "\0", "'", "%", ":"} & set(source.name)
            assert argv.count(f"file:{source}") >= 1
    try:
        prove_argv("ffmpeg", source, container, 60)
    except (ValueError, KeyError):
        return


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY, inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    "id",
    "status",
    "output",
    "error",
    "logs",
    "metrics",
    "created_at",
    "completed_at",
    "webhook",
    "model",
)


@given(
    body=st.binary(max_size=200)
    | st.dictionaries(st.sampled_from(FIELDS), JSON).map(lambda value: json.dumps(value).encode())
    | _edited('{"id": "p", "status": "succeeded", "output": ["https://x/y"], "logs": "50%|"}').map(
        lambda text: text.encode("utf-8", "surrogatepass")
    ),
    header=ANY,
)
def replies(body: bytes, header: str) -> None:
    """A prediction that can be stored, or one typed error."""
    read_problem(body)
    wait_s = read_retry_after_s({"retry-after": header}, body, now=NOW)
    assert wait_s is None or 0 <= wait_s <= 86_400
    try:
        prediction = read_reply(body)
    except ProviderBadResponse:
        return
    kept = json.dumps([prediction.output, prediction.error, prediction.logs_tail, prediction.metrics])
    assert "\\u0000" not in kept
    kept.encode()


async def _public(_host: str, _port: int) -> list[str]:
    return ["1.1.1.1"]


GUARD = Guard(allow=(), resolver=_public, timeout_s=30)


@given(
    url=ANY
    | _edited("https://user@example.com:443/x?y#z")
    | st.sampled_from(SPELLINGS).map("https://{}/".format)
)
def addresses(url: str) -> None:
    """Refused, or https on 443 at addresses that are public."""
    try:
        target = asyncio.run(GUARD.judge(url, DownloadRules(hosts=())))
    except (OutputRejected, ProviderUnavailable):
        return
    assert target.url.scheme == "https"
    assert target.url.port in (None, 443)
    assert target.host.isascii()
    assert not any(map(refusal, target.addresses))


LINKS = Links(secrets=("a" * 64, "b" * 64), life_s=1 << 30)
GOOD = dict(part.split("=") for part in LINKS.url("ast_1", tenant="t").partition("?")[2].split("&"))


@given(
    asset_id=ANY | st.just("ast_1"),
    tenant=ANY | st.just("t"),
    expires=ANY | _edited(GOOD["expires"]),
    signature=ANY | _edited(GOOD["signature"]),
)
def links(asset_id: str, tenant: str, expires: str, signature: str) -> None:
    """A link opens only as it was made."""
    given = {"tenant": tenant, "expires": expires, "signature": signature}
    try:
        asyncio.run(LINKS.check(asset_id, **given))
    except Forbidden:
        return
    assert asset_id == "ast_1"
    assert {**given, "expires": str(int(expires))} == GOOD


_WORDS = st.sampled_from(
    ["rain", "snow*", '"tin roof"', "state:failed", "state:", "since:2h", "until:2026-01-01", "tag.a:b", "OR",
     "AND", "NOT", "-", "(", ")", '"', "\\", ":", "*", "雨", "ﬃ", "İ", "ß", "\u0301", "id:job_1", " "]
)  # fmt: skip
SEARCHES = st.one_of(
    st.text(max_size=60), st.lists(st.one_of(_WORDS, st.text(max_size=4)), max_size=30).map(" ".join)
)


@given(text=SEARCHES)
@example(text="ﬃ*")
@example(text="a\u0301*")
@example(text="x" * 80 + "*")
def searches(text: str) -> None:
    """A search is refused at a place in it, or read; and printing what was read loses nothing."""
    try:
        node = parse(text, now=NOW)
    except InvalidQuery as refused:
        assert 1 <= refused.column <= len(text) + 1  # noqa: PT017 - there are two ways, and this is one
        return
    again = spell(node)
    if len(again) <= MOST_CHARS:
        assert parse(again, now=NOW) == node


TARGETS: dict[str, Any] = {
    "searches": searches,
    "signature": signature,
    "ranges": ranges,
    "arguments": arguments,
    "replies": replies,
    "addresses": addresses,
    "links": links,
}
