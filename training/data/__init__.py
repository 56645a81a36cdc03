"""Labels, datasets and the tokenizer of a small world."""
