"""The sound that a prediction is to read: fetched from the address in its input, under a cap.

The address is a signed link of the service's, made for this attempt. Promises that no more than MOST_BYTES
are written, that nothing but HTTP is spoken and no redirect is followed. A failure is no refusal: the next
attempt has a fresh link.
"""

from __future__ import annotations

from pathlib import Path

from app.engines.base import EngineError

MOST_BYTES = 200_000_000
CONNECT_S, SILENCE_S = 5.0, 30.0


class FetchFailed(Exception):
    """The file did not come; its address may be signed, so it is not in the text."""


def fetch(url: str, into: Path) -> Path:
    """The file behind the address. Raises EngineError for what is no address or too large, FetchFailed."""
    import httpx

    if not url.startswith(("http://", "https://")):
        raise EngineError("audio: an http or https address is needed")
    size_bytes = 0
    limits = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
    try:
        # trust_env: a proxy from the environment must never see a request to this machine.
        with (
            httpx.Client(timeout=limits, trust_env=False) as client,
            client.stream("GET", url, headers={"accept-encoding": "identity"}) as answer,
            into.open("wb") as file,
        ):
            if answer.status_code != httpx.codes.OK:
                raise FetchFailed(f"the audio could not be fetched: the answer was {answer.status_code}")
            for chunk in answer.iter_raw():
                size_bytes += len(chunk)
                if size_bytes > MOST_BYTES:
                    raise EngineError(f"audio: more than {MOST_BYTES} bytes")
                file.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchFailed(f"the audio could not be fetched: {type(error).__name__}") from error
    return into
