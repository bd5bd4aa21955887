"""The ledger: who told what and when, what was refused, and asking or sending again, one or very many."""
