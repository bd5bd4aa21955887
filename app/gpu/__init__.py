"""The GPU worker: Cog servers of ours behind one front that speaks Cog's own protocol and keeps its word.

Read it in this order: `groups` (which engines live in one server), `tickets` (one accepted prediction and the
words owed for it), `front` (the HTTP side), `lanes` (a queue and the carrying of one prediction to its end),
`garage` (which servers are up, and what makes room for another), `couriers` (news to the callers), `memory`
(how much is free), `running` (all of it, for as long as a command lives).
"""
