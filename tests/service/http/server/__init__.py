"""The socket side of HTTP, tested over real connections."""
