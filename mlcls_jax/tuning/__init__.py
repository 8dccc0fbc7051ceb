"""Several runs: a search for better settings, and their average."""
