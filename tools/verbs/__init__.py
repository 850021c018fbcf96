"""One verb of `hostctl` per module; each has a `command`. See tools/cli.py."""
