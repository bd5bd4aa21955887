"""Reprise, an audio job service: the map of the building.

One line of stations carries a job from the request to the stored file:

    jobs -> dispatch -> (provider) -> inbox -> finish -> announce
                            recovery puts back what fell off

Read in this order: `lifecycle` (what news means, pure), `routing.recovery` (what follows a trouble, one
table), `db.states` (what may follow what), `jobs`, `dispatch`, `inbox`, `finish`, `recovery`, then `wiring`,
where every live object is made. `families/` are jobs whose work is other jobs. `web/`, `worker` and `cli` are
edges: they parse, call one verb and render.
`engines/` and `gpu/` run in worker processes and know nothing of the line. `client/` is what other programs
import to call the service, and knows nothing of it.
`docs/explanation/life-of-a-job.md` tells the same story in prose.
"""

__version__ = "0.1.0"
