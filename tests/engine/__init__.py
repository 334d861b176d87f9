"""Tests of the state engine; expected values come from MATHS.md or from the slow twin, never from the engine."""
