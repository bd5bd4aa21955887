"""Stored bytes over HTTP: `ranges` (which of them), `conditions` (whether at all), `sending` (the answer)."""
