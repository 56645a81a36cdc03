"""Training: rollouts of an environment become a trained, evaluated and published AgentPRM checkpoint."""
