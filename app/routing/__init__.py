"""Where a job's next attempt goes, and what follows when one goes wrong.

Owns `recovery` (the table of troubles and what is done about each), `choice` (which provider is next) and
`circuits` (when a provider that failed is left alone). All three are pure: the rows are read and written by
the stations, the statements are in `db.circuits`.
"""
