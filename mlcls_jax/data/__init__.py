"""Data sets: sources, images, batches, the check and conversions."""
