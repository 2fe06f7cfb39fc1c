"""Limits of a robot's commands, by site and task, and the guard that enforces them."""
