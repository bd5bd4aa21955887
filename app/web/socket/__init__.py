"""Socket.IO: `/socket.io` beside the HTTP API, for whoever wants to be told instead of asking.

Reading order: `server` (the door, its bounds, its end), `namespace` (what each namespace does alike: proof of
the caller, messages in, words out), `jobs` (the feed of a tenant, to everybody who subscribed).
Promises: nobody is connected to a namespace without a key, a token or an open house; what a reader does not
take is bounded, and costs nobody else anything; what is told comes from the log of events, by its number, so
that a reader who comes back misses nothing and hears nothing twice. No state here outlives the process.
"""
