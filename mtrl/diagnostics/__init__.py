"""What a machine has and lacks: one small function a check, which takes facts and returns a finding.

The modules beside this one are imported one by one, so that a missing package breaks the checks that
need it and no others.
"""

from .finding import Finding, State, broken, good, optional, warning

__all__ = ["Finding", "State", "broken", "good", "optional", "warning"]
