"""How a model comes into memory: `weights` proves its bytes, `resident` keeps it while it is needed."""
