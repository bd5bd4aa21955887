"""Who may call, and who did what: verbs on keys and on the audit log."""
