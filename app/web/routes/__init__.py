"""The routes, one module a family. Each parses, calls one verb and renders; their schemas that no other
family shows stand beside them, the shared ones in `app.web.schemas`."""
