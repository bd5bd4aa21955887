"""Lyrics and performances: what is asked (`calls`), what is answered (`lyrics`, `performances`)."""
