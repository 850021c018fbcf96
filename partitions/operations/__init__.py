"""The operations partition: keeps the versioned policies that decisions follow (U13)."""
