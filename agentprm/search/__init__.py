"""Choice of actions by scores from any source; needs no torch."""
