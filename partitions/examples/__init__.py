"""Example guests; README.md of this folder tells what each shows."""
