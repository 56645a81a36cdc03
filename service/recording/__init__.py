"""Scored trajectories and their outcomes as rollout files, off unless ``AGENTPRM_RECORD`` names a directory."""
