"""Hopfield nets that settle: phases, what nudges them, and the contrast of where they end."""
