"""A search for better settings of a run: what is tried, and the study that tries it."""
