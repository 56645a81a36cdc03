"""Trainers: next-token pre-training, then Algorithm 1 on promises."""
