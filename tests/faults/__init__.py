"""Faults under load: what survives when processes are killed."""
