"""The record: what a run was told, what it was run on and what it measured."""
