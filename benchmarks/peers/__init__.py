"""What the benchmarks compare with: other frameworks and runtimes, and our models in them."""
