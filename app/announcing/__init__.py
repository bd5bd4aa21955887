"""The station that tells the caller: signed announcements of a job's end, by Standard Webhooks.

Read `letters` (what is said), `schedule` (what follows an answer, pure), then `station` (one try).
`endpoints` says what an address is and whether it may be one, `signing` whose secrets sign, `outbox` what
whoever looks on may see and ask for again.
"""
