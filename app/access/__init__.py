"""Who calls, and what they may do: tenants, scopes and the keys that prove them."""
