"""The files of a checkpoint; no torch."""
