"""The benchmarks of `hostctl bench`: one module each, with a `command` made by tools.measure.command.benchmark."""
