"""Asynchronous layers: each worker has some layers, with their own weights, optimizers and pace.

Public as `dualprop.distributed`.
"""
