"""Faults on Ray: what is killed and frozen, and the check that nothing is lost or comes twice."""
