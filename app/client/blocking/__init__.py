"""The client that blocks. Made from `app/client/aio` by scripts/make-client, but for `waits`."""
