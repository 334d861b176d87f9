"""Optimizers and learning-rate schedules; an update at each gradient; averaged weights."""
