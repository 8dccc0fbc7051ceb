"""Predict memory, traffic and time of a run on a chip before it is started."""
