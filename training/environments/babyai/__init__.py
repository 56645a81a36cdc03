"""BabyAI as text: the worlds of the ``minigrid`` package, in the words of AgentGym, and a noisy bot."""
