"""The whole service under overload, with everything around it failing (``chaos``), and while models are swapped."""
