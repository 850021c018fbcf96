"""Imported by small.late_imports from the program folder."""

VALUE = "beside"
