"""Rollouts on real Ray processes."""
