"""What ranks do in test_ranks: agents with samples and noise of their own, beside one process with all."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mtrl.agents.diffusion import DiffusionAgent, DiffusionConfig, ReturnSettings
from mtrl.agents.diffusion.policy import DiffusionSampler
from mtrl.agents.sac import NetworkConfig, SACAgent
from mtrl.agents.sac.losses import TrainingBatch
from mtrl.data import Batch, Bucket, Trajectories
from mtrl.distillation import DistillationConfig, SameNoiseDistiller
from mtrl.errors import MtrlError
from mtrl.gradients import SurgeryConfig
from mtrl.nn import ChunkNetwork, ChunkShape, ExpertsConfig, PaCoConfig
from mtrl.reducer import ALONE, Reducer
from mtrl.rollout import Execution
from mtrl.training import Agent, Datasets

from ..ranks import main
from .demonstrations import choice_data, choice_tasks
from .sac_made import MIXED, SMALL, fragment_of, torso

UPDATES, WIDTH, RANKS = 5, 8, 2
KINDS = (torch.float32, torch.float64)


def experts(**changes: object) -> NetworkConfig:
    parts = ExpertsConfig(**{"routed": 4, "chosen": 2, "hidden": 8, **changes})  # type: ignore[arg-type]
    return NetworkConfig(torso=torso(12, kind="experts", experts=parts), bins=11)


MIXTURES = torso(12, kind="paco", paco=PaCoConfig(sets=3, extreme_loss=1e-3))
DEEP = NetworkConfig(torso=torso(16, depth=3), critic="scalar")
SCALAR = NetworkConfig(torso=torso(16), critic="scalar")
SAC: dict[str, dict[str, Any]] = {
    "plain": {"network": SCALAR},
    "categorical": {"gradient_clip": 0.5},
    "autograd": {"network": SCALAR, "explicit": False, "actor_every": 1},
    "pcgrad": {"network": SCALAR, "gradients": SurgeryConfig("pcgrad", part="both", row_method="backward")},
    "mgda": {"network": SCALAR, "gradients": SurgeryConfig("mgda", part="both")},
    "famo": {"network": SCALAR, "gradients": SurgeryConfig("famo")},
    "uphill": {"network": SCALAR, "gradients": SurgeryConfig("cagrad", part="both", perturbation=0.01)},
    # rows of all parameters take 18 kB and more, those of the largest 12 kB at most
    "streamed": {"network": DEEP, "gradients": SurgeryConfig("mgda", memory_mb=0.015)},
    "experts": {"network": experts()},
}
ALIKE: dict[str, dict[str, Any]] = {
    "balance loss": {"network": experts(switch=5.0), "gradients": SurgeryConfig("pcgrad", row_method="loop")},
    "balance loss, plain": {"network": experts(switch=5.0)},
    "paco": {"network": NetworkConfig(torso=MIXTURES, bins=11)},
}
"""Of which only is asked that ranks stay alike: their losses are not sums over samples."""


def drawn(update: int, rank: int, tasks: Sequence[int]) -> Batch:
    """Samples of one rank."""
    generator, layout, count = np.random.default_rng([update, rank]), MIXED.layout, len(MIXED)
    state = generator.normal(size=(count, 2, WIDTH, layout.state_size)) * layout.state_mask[:, None, None]
    continuous = generator.uniform(-1, 1, (count, WIDTH, layout.continuous_size))
    continuous = continuous * layout.continuous_mask[:, None]
    fields = {
        "continuous": continuous.astype(np.float32),
        "discrete": generator.integers(0, 2, (count, WIDTH)),
        "reward": (generator.normal(size=(count, WIDTH)) * 1e-3 + rank * 1e-3).astype(np.float32),
        "terminated": generator.random((count, WIDTH)) < 0.2,
        "truncated": np.zeros((count, WIDTH), bool),
    }
    rows = list(tasks)
    return Batch(
        task_index=torch.tensor(rows),
        weight=torch.ones(len(rows), WIDTH),
        buckets={"state": Bucket(torch.from_numpy(state.astype(np.float32)[rows]), torch.arange(len(rows)))},
        fields={name: torch.from_numpy(values[rows]) for name, values in fields.items()},
    )


def joined(update: int, lacking: bool) -> Batch:
    """Samples of all ranks; where rank 1 lacks task 1, those of rank 0 stand for it twice."""
    every = range(len(MIXED))
    zero, one = drawn(update, 0, every), drawn(update, 1, every)
    if lacking:
        one.buckets["state"].values[1] = zero.buckets["state"].values[1]
        for name, values in one.fields.items():
            values[1] = zero.fields[name][1]
    state = torch.cat([zero.buckets["state"].values, one.buckets["state"].values], 2)
    return Batch(
        task_index=zero.task_index,
        weight=torch.ones(len(MIXED), 2 * WIDTH),
        buckets={"state": Bucket(state, torch.arange(len(MIXED)))},
        fields={name: torch.cat([zero.fields[name], one.fields[name]], 1) for name in zero.fields},
    )


class Samples:
    """A replay of prepared batches."""

    def __init__(
        self, rank: int | None, *, lacking: bool = False, spoiled: Exception | float | None = None
    ) -> None:
        self.sizes = np.full(len(MIXED), 1000)
        self._rank, self._lacking, self._spoiled, self._update = rank, lacking, spoiled, 0
        if lacking and rank == 1:
            self.sizes[1] = 0

    def sample(self, width: int, generator: object, tasks: Sequence[int]) -> Batch:
        self._update += 1
        if self._rank is None:
            return joined(self._update, self._lacking)
        found = drawn(self._update, self._rank, tasks)
        if self._rank == 1 and self._update == 2:
            if isinstance(self._spoiled, Exception):
                raise self._spoiled
            if self._spoiled is not None:
                found.fields["reward"][0, 0] = self._spoiled
        return found


class Noise:
    """Prepared noise, in the place of a generator."""

    def __init__(self, rank: int | None) -> None:
        self._rank, self._calls = rank, 0

    def drawn(self, shape: tuple[int, int, int]) -> torch.Tensor:
        self._calls += 1
        size = (shape[0], WIDTH, shape[2])
        parts = [
            torch.from_numpy(np.random.default_rng([9, self._calls, rank]).normal(size=size))
            for rank in (range(RANKS) if self._rank is None else [self._rank])
        ]
        return torch.cat(parts, 1).to(torch.get_default_dtype())


real_noise = TrainingBatch.noise


def prepared_noise(batch: TrainingBatch, generator: Any) -> torch.Tensor:
    if isinstance(generator, Noise):
        return generator.drawn(tuple(batch.continuous.shape))
    return real_noise(batch, generator)


def sac(rank: int | None, reducer: Reducer, changes: Mapping[str, Any], **samples: Any) -> SACAgent:
    """An agent whose ranks saw fragments of their own, with prepared samples and noise."""
    ranks = 1 if rank is None else RANKS
    config = dataclasses.replace(SMALL, batch_size=RANKS * WIDTH, **changes)
    agent = SACAgent(config, MIXED, 5, rank=rank or 0, ranks=ranks)
    for who in range(RANKS) if rank is None else [rank]:
        for k in range(len(MIXED)):
            steps = 30 + 5 * who
            agent.ingest(fragment_of(MIXED, k, steps, ends={9: "truncated"}, seed=10 * who + k))
    agent.due(0, reducer)
    agent._replay = Samples(rank, **samples)  # type: ignore[assignment]
    noise: Any = Noise(rank)
    agent._computation._generator = noise
    if agent._explicit is not None:
        agent._explicit._generator = noise
    agent.due(0, reducer)
    return agent


def flat(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].detach().double().flatten() for name in sorted(tensors)])


def weights_of(agent: SACAgent) -> torch.Tensor:
    state = agent.shared_state()
    parts = [flat(state[name]) for name in ("actor", "critic", "target")]
    return torch.cat([*parts, state["log_temperature"].double()])


def digest(weights: torch.Tensor) -> str:
    return hashlib.sha256(weights.numpy().tobytes()).hexdigest()


def gradients_of(agent: SACAgent, reducer: Reducer) -> dict[str, torch.Tensor]:
    """Of the first update, summed over tasks."""
    agent._compute_gradients(agent._context(reducer))
    found = {name: group.weights.gradient.clone() for name, group in agent._groups.items()}
    assert agent._temperature_gradient is not None
    return found | {"temperature": agent._temperature_gradient.clone()}


def gradient_after(agent: Agent, network: torch.nn.Module, reducer: Reducer) -> torch.Tensor:
    """The gradient of the agent's next update, clipped."""
    agent.update(reducer)
    return flat({name: value.grad for name, value in network.named_parameters() if value.grad is not None})


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def sac_beside_one(reducer: Reducer, changes: Mapping[str, Any], *, lacking: bool = False) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for kind in KINDS:
        torch.set_default_dtype(kind)
        pairs = ((reducer.rank, reducer), (None, ALONE))
        ranked, alone = (sac(rank, to, changes, lacking=lacking) for rank, to in pairs)
        assert torch.equal(ranked._actor.observer.mean, alone._actor.observer.mean)
        assert ranked._actor.observer.mean.any()
        np.testing.assert_array_equal(ranked._reward_scale.largest, alone._reward_scale.largest)
        ours, theirs = gradients_of(ranked, reducer), gradients_of(alone, ALONE)
        before = weights_of(alone)
        told = [agent.update(to) for agent, to in ((ranked, reducer), (alone, ALONE)) for _ in range(UPDATES)]
        mine, other = told[UPDATES - 1], told[-1]
        assert mine.keys() == other.keys()
        difference = (weights_of(ranked) - weights_of(alone)).abs().max()
        facts[str(kind)] = {
            "gradients": {name: apart(ours[name], theirs[name]) for name in theirs},
            "weights": float(difference),
            "moved": float((before - weights_of(alone)).abs().max()),
            "metrics": max(abs(mine[k] - other[k]) / (1e-3 + abs(other[k])) for k in other),
            "told": dict(mine),
            "streamed": any(g.surgery.streamed for g in ranked._groups.values() if g.surgery is not None),
            "digest": digest(weights_of(ranked)),
        }
    return facts


def sac_alike(reducer: Reducer, changes: Mapping[str, Any]) -> dict[str, Any]:
    torch.set_default_dtype(torch.float32)
    agent = sac(reducer.rank, reducer, changes)
    before = weights_of(agent)
    told = [dict(agent.update(reducer)) for _ in range(UPDATES)]
    moved = float((weights_of(agent) - before).abs().max())
    return {"digest": digest(weights_of(agent)), "told": told[-1], "moved": moved}


def sac_failures(reducer: Reducer) -> dict[str, Any]:
    torch.set_default_dtype(torch.float32)
    facts: dict[str, Any] = {}
    for name, changes in {"plain": SAC["plain"], "pcgrad": SAC["pcgrad"]}.items():
        agent = sac(reducer.rank, reducer, changes, spoiled=np.nan)
        agent.update(reducer)
        facts[f"stop {name}"] = raised(lambda agent=agent: agent.update(reducer))
        agent = sac(reducer.rank, reducer, {**changes, "on_non_finite": "skip"}, spoiled=np.nan)
        told = [agent.update(reducer)["skipped_updates"] for _ in range(3)]
        facts[f"skip {name}"] = [told, agent.updates, digest(weights_of(agent))]
    agent = sac(reducer.rank, reducer, {}, spoiled=OSError("the disk is gone"))
    agent.update(reducer)
    facts["sampling"] = raised(lambda: agent.update(reducer))
    agent = sac(reducer.rank, reducer, {})
    reward = [np.nan if reducer.rank == 1 else 0.0] * 10
    agent._replay = SACAgent(agent._config, MIXED, 5)._replay
    agent.ingest(fragment_of(MIXED, 0, 10, reward=reward))
    facts["ingest"] = raised(lambda: agent.due(100, reducer))
    # rank 0 has nothing at all: both wait, then both learn from what rank 1 has
    agent = SACAgent(dataclasses.replace(SMALL, replay_ratio=0.1), MIXED, 5, rank=reducer.rank, ranks=RANKS)
    waits = [agent.due(10, reducer)]
    if reducer.rank == 1:
        agent.ingest(fragment_of(MIXED, 2, 40))
    waits += [agent.due(40, reducer), agent.due(60, reducer)]
    metrics = agent.update(reducer)
    facts["lacking"] = [waits, metrics["critic_loss/made/pull"], sorted(metrics), digest(weights_of(agent))]
    return facts | {"still": reducer.agree(1.0, "sum")}


def raised(call: Any) -> list[str]:
    try:
        call()
    except (MtrlError, OSError) as error:
        return [type(error).__name__, str(error)]
    return []


SHAPE = ChunkShape(width=16, blocks=1, chunk=2, embedding=4)
DIFFUSION = {
    "diffusion": {},
    "regression": {"objective": "regression"},
    "diffusion by pcgrad": {"gradients": SurgeryConfig("pcgrad")},
    "diffusion by famo": {"gradients": SurgeryConfig("famo")},
    "diffusion uphill": {"gradients": SurgeryConfig("sum", perturbation=0.01)},
}


def shares_of(rank: int | None) -> dict[int, Trajectories]:
    """Every second episode; of the second task rank 1 has none."""
    data = choice_data(episodes=12)
    if rank is None:
        return data
    mine = {0: data[0].select(np.arange(rank, 12, 2))}
    return mine | {1: data[1]} if rank == 0 else mine


def diffusion_beside_one(reducer: Reducer, changes: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    config = DiffusionConfig(
        network=SHAPE, execution=Execution(steps=1), batch_size=32, warmup=2, learning_rate=1e-3, **changes
    )
    for kind in KINDS:
        torch.set_default_dtype(kind)
        agents = []
        for rank, to in ((reducer.rank, reducer), (None, ALONE)):
            agent = DiffusionAgent(
                config, choice_tasks(), 5, rank=rank or 0, ranks=1 if rank is None else RANKS
            )
            agent.ingest(Datasets(shares_of(rank)))
            assert agent.due(UPDATES + 1, to) == UPDATES + 1
            inject(agent, rank)
            agents.append(agent)
        ranked, alone = agents
        torch.testing.assert_close(ranked._network.mean, alone._network.mean, rtol=1e-6, atol=1e-7)
        for network in (ranked._network, ranked._average):
            network.load_state_dict(alone._network.state_dict())
        before = flat(alone.shared_state()["network"])
        first = [
            gradient_after(agent, agent._network, to) for agent, to in ((ranked, reducer), (alone, ALONE))
        ]
        told = [agent.update(to) for agent, to in ((ranked, reducer), (alone, ALONE)) for _ in range(UPDATES)]
        ours, theirs = (flat(agent.shared_state()["network"]) for agent in agents)
        facts[str(kind)] = {
            "gradients": {"network": apart(*first)},
            "weights": float((ours - theirs).abs().max()),
            "moved": float((before - theirs).abs().max()),
            "told": dict(told[UPDATES - 1]),
            "digest": digest(torch.cat([ours, flat(ranked.shared_state()["average"])])),
        }
    return facts


def inject(agent: DiffusionAgent, rank: int | None) -> None:
    """Rank 0 has samples of both tasks, rank 1 of the first alone."""
    source, calls = choice_data(episodes=12), [0]
    dataset = type(agent._data)(choice_tasks(), SHAPE.history, SHAPE.chunk, 1, "a test")
    dataset.ingest(source)
    assert dataset._dataset is not None
    whole = dataset._dataset

    def picked(who: int) -> np.ndarray:
        draws = np.random.default_rng([calls[0], who])
        return np.stack([whole._first[k] + draws.integers(whole._count[k], size=WIDTH) for k in range(2)])

    def sample(batch_size: int, generator: object) -> Batch:
        calls[0] += 1
        if rank is None:
            zero, one = picked(0), picked(1)
            one[1] = zero[1]
            return whole.gather(np.concatenate([zero, one], 1))
        found = whole.gather(picked(rank))
        if rank == 1:
            found.weight[1] = 0.0
        return found

    def draw(chunk: torch.Tensor, _: torch.Generator) -> dict[str, torch.Tensor]:
        parts = []
        for who in range(RANKS):
            draws = torch.Generator().manual_seed(1000 * calls[0] + who)
            size = (2, WIDTH, *chunk.shape[2:])
            noise = torch.randn(size, generator=draws, dtype=torch.float64)
            sigma = torch.rand(2, WIDTH, generator=draws, dtype=torch.float64) + 0.1
            parts.append((sigma, noise))
        if rank is None:
            parts[1][0][1], parts[1][1][1] = parts[0][0][1], parts[0][1][1]
            found = tuple(torch.cat([a, b], 1) for a, b in zip(*parts, strict=True))
        else:
            found = parts[rank]
        kind = torch.get_default_dtype()
        return {"sigma": found[0].to(kind), "noise": found[1].to(kind)}

    agent._data.sample = sample  # type: ignore[method-assign]
    agent._objective.draw = draw  # type: ignore[method-assign]


class Arange:
    """Draws that take a pool in its order."""

    def integers(self, high: int, size: int) -> np.ndarray:
        assert high == size
        return np.arange(size)


def distiller_beside_one(reducer: Reducer) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    tasks = choice_tasks()
    config = DistillationConfig(
        network=SHAPE, execution=Execution(steps=1), batch_size=24, updates=50, reuse=1, learning_rate=1e-3
    )
    for kind in KINDS:
        torch.set_default_dtype(kind)
        torch.manual_seed(3)
        network = ChunkNetwork(SHAPE, tasks.layout)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        teacher = DiffusionSampler(DiffusionConfig(network=SHAPE, execution=Execution(steps=1)), network)
        distillers = []
        for rank, to in ((reducer.rank, reducer), (None, ALONE)):
            made = SameNoiseDistiller(
                config, teacher, tasks, 5, rank=rank or 0, ranks=1 if rank is None else RANKS
            )
            made.ingest(Datasets(choice_data(episodes=4)))
            assert made.due(UPDATES + 1, to) == UPDATES + 1
            inject_pool(made, teacher, rank)
            distillers.append(made)
        ranked, alone = distillers
        before = flat(alone.shared_state()["student"])
        first = [gradient_after(made, made._network, to) for made, to in ((ranked, reducer), (alone, ALONE))]
        told = [made.update(to) for made, to in ((ranked, reducer), (alone, ALONE)) for _ in range(UPDATES)]
        ours, theirs = (flat(made.shared_state()["student"]) for made in distillers)
        facts[str(kind)] = {
            "gradients": {"network": apart(*first)},
            "weights": float((ours - theirs).abs().max()),
            "moved": float((before - theirs).abs().max()),
            "told": dict(told[UPDATES - 1]),
            "digest": digest(torch.cat([ours, flat(ranked.shared_state()["average"])])),
        }
    facts["failure"] = distiller_failure(reducer, ranked)
    return facts


def inject_pool(made: SameNoiseDistiller, teacher: DiffusionSampler, rank: int | None) -> None:
    """Ranks have other mixtures of the tasks, whose masks differ in size."""

    def part(update: int, who: int) -> dict[str, torch.Tensor]:
        draws = torch.Generator().manual_seed(100 * update + who)
        kind = torch.float64
        states = torch.randn(12, 1, 3, generator=draws, dtype=kind)
        task = (torch.rand(12, generator=draws) < (0.2 + 0.6 * who)).long()
        z = torch.randn(12, teacher.spec.noise_size, generator=draws, dtype=kind)
        now = torch.get_default_dtype()
        states, z = states.to(now), z.to(now)
        target = torch.from_numpy(teacher.sample(states.numpy(), task.numpy(), z.numpy()))
        return {"states": states, "task": task, "z": z, "target": target}

    def grow() -> None:
        parts = [part(made.updates, who) for who in (range(RANKS) if rank is None else [rank])]
        made._pool = {name: torch.cat([p[name] for p in parts]) for name in parts[0]}

    made._grow_pool = grow  # type: ignore[method-assign]
    made._draws = Arange()  # type: ignore[assignment]


def distiller_failure(reducer: Reducer, made: SameNoiseDistiller) -> list[str]:
    grow = made._grow_pool

    def spoiled() -> None:
        grow()
        if reducer.rank == 1:
            made._pool["states"][0] = torch.nan

    made._grow_pool = spoiled  # type: ignore[method-assign]
    return raised(lambda: made.update(reducer))


def demonstrations_lacking(reducer: Reducer) -> list[str]:
    """Rank 1 got none at all."""
    agent: Agent = DiffusionAgent(
        DiffusionConfig(network=SHAPE, execution=Execution(steps=1), batch_size=32), choice_tasks(), 5,
        rank=reducer.rank, ranks=RANKS,
    )  # fmt: skip
    agent.ingest(Datasets(shares_of(0) if reducer.rank == 0 else {}))
    return raised(lambda: agent.due(3, reducer))


def quality_over_ranks(reducer: Reducer) -> dict[str, float]:
    """Start of an episode of this rank -> how good it is; the return of an episode is its start's number."""
    returns = ReturnSettings(dropout=0.2)
    config = DiffusionConfig(network=SHAPE, execution=Execution(steps=1), batch_size=24, returns=returns)
    made = DiffusionAgent(config, choice_tasks(), 5, rank=reducer.rank, ranks=RANKS)
    whole = choice_data(episodes=6)
    mine = {}
    for k, part in whole.items():
        rewards = np.repeat(part.start_id, part.lengths).astype(np.float32)
        paid = dataclasses.replace(part, rewards=rewards)
        mine[k] = paid.select(np.arange(reducer.rank, 6, RANKS))
    made.ingest(Datasets(mine))
    assert made.due(1, reducer) == 1
    found = made._data._dataset._quality.numpy()[:: mine[0].lengths[0]]
    starts = np.concatenate([part.start_id for part in mine.values()])
    return {str(start): round(float(quality), 4) for start, quality in zip(starts, found, strict=True)}


def learners(reducer: Reducer) -> Mapping[str, Any]:
    TrainingBatch.noise = prepared_noise  # type: ignore[method-assign]
    facts: dict[str, Any] = {name: sac_beside_one(reducer, changes) for name, changes in SAC.items()}
    for name in ("plain", "pcgrad", "famo"):
        facts[f"{name}, lacking a task"] = sac_beside_one(reducer, SAC[name], lacking=True)
    facts |= {name: diffusion_beside_one(reducer, changes) for name, changes in DIFFUSION.items()}
    facts["distiller"] = distiller_beside_one(reducer)
    facts["quality"] = quality_over_ranks(reducer)
    facts["alike"] = {name: sac_alike(reducer, changes) for name, changes in ALIKE.items()}
    facts["failures"] = sac_failures(reducer)
    facts["demonstrations"] = demonstrations_lacking(reducer)
    return facts


if __name__ == "__main__":
    main({"learners": learners}, timeout=30.0)
