"""Hopfield nets that settle, in one copy or in many."""
