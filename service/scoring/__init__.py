"""Trajectories in, promise and progress out."""
