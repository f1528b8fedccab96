"""What the serving benchmarks share: a load generator, and the servers that they are compared with."""
