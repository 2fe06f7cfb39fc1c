"""Checks of a machine: each is one small function from facts to a finding.

The modules are imported one by one, so that a missing package breaks only the checks that need it.
"""

from .finding import Finding, State, broken, good, optional, warning

__all__ = ["Finding", "State", "broken", "good", "optional", "warning"]
