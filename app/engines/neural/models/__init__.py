"""The neural models, one module a kind: `load(named, placement)` and a class that renders."""
