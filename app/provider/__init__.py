"""Providers: `base` (the port), `replicate` (hosted), `cog` (a worker of ours or anybody's), `signature`."""
