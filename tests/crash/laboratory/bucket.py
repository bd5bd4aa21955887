"""A bucket behind S3's protocol in a process of its own, which now and then answers as a busy one does.

`python -m tests.crash.laboratory.bucket --port N --seed S --trouble P`: moto, and before it a door that
answers some requests with 500, or with 503 as S3 says SlowDown.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from tests.conftest import BUCKET

REFUSALS = ("500 Internal Server Error", "503 Slow Down")


class Door:
    """Lets requests through, or not."""

    def __init__(self, dice: random.Random, trouble: float) -> None:
        self._inner = DomainDispatcherApplication(create_backend_app)
        self._dice = dice
        self._trouble = trouble

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        # The bucket itself is made, and looked through at the end, undisturbed.
        spared = environ["PATH_INFO"].strip("/") in ("", BUCKET, "moto-api")
        if spared or self._dice.random() >= self._trouble:
            return self._inner(environ, start)  # type: ignore[no-any-return]
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(self._dice.choice(REFUSALS), [("Content-Length", "0")])
        return [b""]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--trouble", type=float, default=0.0)
    given = parser.parse_args()
    door = Door(random.Random(given.seed), given.trouble)
    make_server("127.0.0.1", given.port, door, threaded=True).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
