"""`/api/v1/convert`: conversions by the names that clients of other services already use. One thin layer over
the jobs of `/v1/jobs`: `song` (the routes), `form` (what is sent), `shapes` (what is answered)."""

from app.web.routes.convert.song import router

__all__ = ["router"]
