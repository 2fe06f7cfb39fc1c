"""A run from demonstrations to a robot: its configuration, its stages and what they keep."""
