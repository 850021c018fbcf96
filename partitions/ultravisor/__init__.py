"""The ultravisor partition: keeps the master resource database and enforces it (U2, U4)."""
