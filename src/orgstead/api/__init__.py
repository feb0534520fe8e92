"""The HTTP edge: translates requests into use cases, and their outcomes into answers."""
