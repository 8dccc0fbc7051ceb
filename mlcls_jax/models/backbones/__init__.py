"""Networks from images to feature maps, one family per file."""
