"""The command partition: decides which resources a partition gets, and says why (U13)."""
