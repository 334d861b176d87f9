"""Dyadic states, the orders in which they are updated, and the event-driven engine that does it."""

from dualprop.engines.dyads import schedules as schedules
