"""Exact metrics and label-free thresholds."""
