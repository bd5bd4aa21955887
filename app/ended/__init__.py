"""What may still be done with a job that has ended: `rerun` makes another end of it, `expunge` forgets it."""
