"""Training: the run, the loop over steps, the step, checkpoints and records."""
