"""Batch scoring: a bundle over millions of images into Parquet files, resumable at any moment."""
