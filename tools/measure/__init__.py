"""What all benchmarks share: cases measured in turn, one document, one table. See README.md."""
