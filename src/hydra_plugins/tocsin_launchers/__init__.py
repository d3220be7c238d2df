"""Launchers of sweeps. Hydra imports these modules at every start: they import nothing heavy."""
