"""What waits, and whose turn it is; knows no text and no torch."""
