"""From a snapshot back to a policy."""

from __future__ import annotations

from mtrl import registry
from mtrl.tasks import TaskSet

from .policy import Policy, PolicySnapshot
from .scripted import ExpertPolicy, NoiseConfig, RandomPolicy


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> Policy:
    """The policy that a snapshot describes, for the tasks of this set."""
    if snapshot.kind == "expert":
        suites = {name: registry.suite(name) for name in {task.suite for task in tasks}}
        return ExpertPolicy(tasks, suites, NoiseConfig(**snapshot.config), snapshot.version)
    if snapshot.kind == "random":
        return RandomPolicy(tasks, snapshot.version)
    policy: Policy
    if snapshot.kind in registry.names("policy"):
        policy = registry.load("policy", snapshot.kind)(snapshot, tasks)
    else:
        policy = registry.load("agent", snapshot.kind).policy(snapshot, tasks)
    return policy
