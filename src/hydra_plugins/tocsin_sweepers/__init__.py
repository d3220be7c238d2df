"""Sweepers that Hydra finds by itself."""
