"""The law of rows: every table, every statement, every legal move. Imports nothing from `app`.

`states` says what may follow what, `tables` what is stored, `session` how a transaction is had, and the
other modules are verbs on rows, named after the table they move.
"""
