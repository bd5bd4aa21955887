"""`/openapi.json` is the whole of what is served, and what is served keeps to it: schemathesis says so."""

from __future__ import annotations



