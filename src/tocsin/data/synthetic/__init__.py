"""Seeded generators of labelled series."""
