"""API keys and their rate limits; knows no HTTP."""
