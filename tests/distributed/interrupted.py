"""Run as a program, from any folder: rollouts on a private cluster that somebody interrupts."""

import contextlib

from mtrl import registry
from mtrl.distributed import rollouts_for
from mtrl.distributed.ray_actors import RayActors
from mtrl.rollout import Acting, EpisodeJob, PolicySnapshot, PoolRollouts, RuntimeConfig


def main() -> None:
    jobs = [EpisodeJob(0, (3 * n,), seed=1, acting=Acting(explore=True), copies=1) for n in range(10_000)]
    rollouts = rollouts_for(registry.task_set("trial/slow"), RuntimeConfig(kind="ray", actors=1))
    assert isinstance(rollouts, PoolRollouts)
    assert isinstance(rollouts.backend, RayActors)
    with contextlib.closing(rollouts):
        for count, _ in enumerate(rollouts.run(jobs, PolicySnapshot("expert"))):
            if count == 0:
                print("pid", rollouts.backend.facts()[0].pid, flush=True)


if __name__ == "__main__":
    main()
