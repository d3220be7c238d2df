"""Pure functions from arrays to Matplotlib figures."""
