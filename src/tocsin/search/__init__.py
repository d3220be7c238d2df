"""The two-stage search: every combination in quick, the promising ones in full."""
