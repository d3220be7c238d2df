"""Ranks finished runs: a table on screen, a CSV file, and a page that needs nothing but a browser."""
