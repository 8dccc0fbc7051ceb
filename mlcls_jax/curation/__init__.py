"""Labels as a thing to work on: which are wrong, which are missing, which to give next."""
