"""Score the steps of LLM agents with a process reward model."""
