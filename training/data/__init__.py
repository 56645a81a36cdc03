"""Data for the trainers: promise targets, token batches and the tokenizer of a small world."""
