"""For schemathesis, as `scripts/fuzz-api` runs it: the key that every request carries is not ended by one.

An administrator may rotate and revoke the very key that it calls with, and each request after that would be
a 401 that tells nothing. Requests to end it go to a second key, made for that.
"""

from __future__ import annotations

import os
from typing import Any

import schemathesis

OWN = os.environ["FUZZ_KEY_ID"]
SPARE = os.environ["FUZZ_SPARE_KEY_ID"]


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case, _kwargs: dict[str, Any]) -> None:
    """Aim at the spare key instead."""
    if case.path_parameters.get("key_id") == OWN:
        case.path_parameters["key_id"] = SPARE


# A piece of a resumable upload: bytes, under tus's own name for them.
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
