"""The scoring microservice."""
