"""Text from outside: read it, and make it fit to print."""
