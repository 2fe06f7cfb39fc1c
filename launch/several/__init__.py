"""Commands on several runs at once."""
