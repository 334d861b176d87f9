"""The lifted objective and a descent on it."""
