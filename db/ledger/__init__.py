"""The ledger's rows: recoveries and their items, who told the end of each attempt, refusals, conflicts."""
