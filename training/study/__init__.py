"""Experiments: TextCraft played with the bundled checkpoint, and a real language model trained on text rollouts."""
