"""From environment rollouts to a trained AgentPRM checkpoint."""
