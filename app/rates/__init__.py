"""How often callers may ask: `policy` (what RATE_LIMITS says), `limiter` (counting), `postgres` (together).

Not to be taken for `app.costs.budgets`, which is about money, nor for `app.intake`, which is about room.
"""
