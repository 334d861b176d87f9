"""Several processes on parts of each batch."""
