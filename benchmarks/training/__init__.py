"""The trainer's forward and backward: packed rows against padded ones, one pass against one forward a step."""
