"""Verbs on what callers are told.

`sending` is for the station, `ledger` for whoever looks; `endpoints` and `secrets` have their own.
"""
