"""A suite, an agent and a robot for mtrl in a package of their own."""
