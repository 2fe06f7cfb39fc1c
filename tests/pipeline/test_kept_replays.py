"""The replay of a run whose number of learners changes."""

from itertools import islice
from pathlib import Path

from mtrl import registry
from mtrl.agents.sac import AGENT, SACConfig
from mtrl.data import MappedStorage, ReplayConfig
from mtrl.pipeline.kept_replays import replay_folder, share_replays
from mtrl.rollout import CollectionConfig, LocalFragments, PolicySnapshot, RuntimeConfig
from mtrl.training import Checkpoints
from mtrl.training.run_recorder import FORMAT


def test_a_replay_follows_the_run_from_one_process_to_learners_and_back(tmp_path: Path) -> None:
    tasks = registry.task_set(["gym/CartPole-v1"])
    agent = AGENT.build(SACConfig(replay=ReplayConfig(capacity=500)), tasks, 0, parents={})
    collection = CollectionConfig(copies=2, steps=8)
    source = LocalFragments(tasks, RuntimeConfig(), collection, PolicySnapshot("random"), seed=1)
    alone = agent.map_replay(None)
    for fragment in islice(source.stream(), 12):
        alone.add(fragment)
    source.close()
    held = alone.sizes
    assert held.sum() > 150
    state = {"shared": agent.shared_state(), "local": agent.local_state()}
    Checkpoints(tmp_path).save(192, {"format": FORMAT, "ranks": 1, "steps": 192, **state})

    def of(rank: int, ranks: int) -> tuple[int, int]:
        """Size and steps."""
        replay = agent.map_replay(MappedStorage(replay_folder(tmp_path, rank, ranks)))
        assert replay.reopened and replay.record is not None
        return int(replay.sizes.sum()), replay.record.steps

    def shared(ranks: int) -> str:
        notes: list[str] = []
        share_replays(tmp_path, agent, ranks, notes.append)
        return "".join(notes)

    # with one learner the checkpoint itself has the replay
    assert shared(1) == ""
    assert shared(2) == "the replay of one process is shared anew among 2 learners"
    sizes, steps = zip(of(0, 2), of(1, 2), strict=True)
    assert sum(sizes) == held.sum() and min(sizes) > 0 and steps == (192, 0)
    assert shared(2) == ""
    assert shared(1) == "the replay of 2 learners is shared anew among 1 learner"
    assert of(0, 1) == (held.sum(), 192)
    assert not replay_folder(tmp_path, 0, 2).exists()
    assert shared(0) == "the replay of 1 learner is shared anew among one process"
    assert agent.local_state()["replay"]["rings"][0]["arrays"]["begins"].sum() == held.sum()
    assert not (tmp_path / "replay").exists()
