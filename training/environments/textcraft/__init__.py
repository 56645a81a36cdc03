"""TextCraft: the environment, its recipes and the noisy planner."""
