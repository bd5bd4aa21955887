"""The gate: what every request to the API passes before a route sees it, and every answer on its way out.

Plain ASGI middlewares, in the order of `ORDER` in `app.main`. Each refuses with a problem or lets pass; none
knows a route. The webhooks' door stands beside it: it is signed or tokened, and nothing may slow it down.
"""
