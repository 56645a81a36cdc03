"""Import of other projects' published checkpoints into the store. Serving uses nothing of it."""
