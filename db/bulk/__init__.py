"""Rows of acts on many jobs: `acts` has the verbs."""
