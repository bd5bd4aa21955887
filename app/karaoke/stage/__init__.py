"""The stage: `state` (the law of what devices share), `singers` (the line of who sings), `songs` (what can be
sung), `remotes` (tokens of guests' phones), and `performances`, which keeps it all in rows. `state` and
`singers` are pure."""
