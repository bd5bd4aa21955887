"""Engines of the local worker: one module or package a capability, served by Cog through `predict.py`.

Imported by the worker process, never by the service: an engine may block, burn a core and crash.
"""
