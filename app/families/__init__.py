"""Families: jobs whose work is other jobs. `plan` (what follows, pure), `recipes` (what is the same work),
`station` (makes the children), `joining` (makes the parent's own files at the end)."""
