"""Voices: the timbre and pitch of one given to the singing or speech of another, and what a voice is like.

`transfer` is an engine of the local worker: WORLD takes a voice apart into pitch, envelope and breath, and
the envelope is moved towards what the wanted voice does at the sounds that whisper hears as the nearest
(WORLD: https://doi.org/10.1587/transinf.2015EDP7457; the matching is that of kNN-VC,
https://arxiv.org/abs/2305.18975, held back to a smoothed difference). That is timbre and pitch transfer,
audible and understandable; it is not a clone. `examine` measures a recording before a profile is made of it.
"""

from app.engines.voice.transfer import transfer

__all__ = ["transfer"]
