"""Seeded defects of the real code, and the proof that tests see each."""
