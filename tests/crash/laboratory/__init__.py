"""The crash laboratory: real processes on one or two machines, load on them, SIGKILL among them, and the law.

Shared by the quick test of the suite and by the long runs in `scripts/lab`. Read `world` first (what there
is), then `members` (processes in one life after another), `load` (who asks), `kills` (who dies), `law`
(what must be true afterwards), `takeover` (how soon another goes on with the work of the dead).
"""
