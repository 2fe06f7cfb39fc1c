"""Run as a program: a cluster of two nodes on this machine, one of which is lost in the middle of a run."""

from ray.cluster_utils import Cluster

from mtrl import registry
from mtrl.distributed import rollouts_for
from mtrl.distributed.ray_actors import RayActors
from mtrl.rollout import (
    Acting,
    EpisodeJob,
    JobResult,
    LocalRollouts,
    PolicySnapshot,
    PoolRollouts,
    RuntimeConfig,
)


def jobs(count: int) -> list[EpisodeJob]:
    return [
        EpisodeJob(0, (6 * n, 6 * n + 3), seed=1, acting=Acting(explore=True), copies=2, record=True)
        for n in range(count)
    ]


def rows(results: list[JobResult]) -> list[bytes]:
    return [r.episodes.observations["state"].tobytes() for r in results if r.episodes is not None]


def main() -> None:
    size = 100 * 2**20
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": size})
    second = cluster.add_node(num_cpus=1, object_store_memory=size)
    cluster.wait_for_nodes()
    tasks, expert = registry.task_set("trial/slow"), PolicySnapshot("expert")
    rollouts = rollouts_for(tasks, RuntimeConfig(kind="ray", actors=2, address=cluster.address))
    assert isinstance(rollouts, PoolRollouts)
    assert isinstance(rollouts.backend, RayActors)
    assert len(list(rollouts.run(jobs(8), expert))) == 8
    print("nodes", len({facts.node for facts in rollouts.backend.facts()}))
    results: list[JobResult] = []
    for result in rollouts.run(jobs(16), expert):
        results.append(result)
        if len(results) == 2:
            cluster.remove_node(second)
    print("replaced", rollouts.backend.replaced)
    here = LocalRollouts(tasks, RuntimeConfig())
    print("equal", rows(results) == rows(list(here.run(jobs(16), expert))))
    rollouts.close()
    cluster.shutdown()


if __name__ == "__main__":
    main()
