"""How states move: one package or module for each way in which the layers of a net find their states."""
