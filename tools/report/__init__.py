"""Documents of benchmarks as one HTML page with plots. See README.md."""
