"""Faults on purpose, and what becomes of a verified load meanwhile (`hostctl chaos`)."""
