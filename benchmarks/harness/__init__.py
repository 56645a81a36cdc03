"""Conditions, timing (interleaved rounds), tables, clients, load_client, hit_client."""
