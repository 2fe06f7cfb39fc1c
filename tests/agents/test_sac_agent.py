"""The SAC agent: values in closed form, targets, saving, mixed actions, faults, and that it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice

import numpy as np
import pytest
import torch

from mtrl import registry
from mtrl.agents.sac import (
    AGENT,
    METRICS,
    ExplorationConfig,
    NetworkConfig,
    NormalisationConfig,
    SACAgent,
    SACConfig,
)
from mtrl.agents.sac.losses import TrainingBatch, actor_losses, critic_losses, td_target
from mtrl.agents.sac.networks import BatchTasks
from mtrl.data import Bucket, ReplayConfig
from mtrl.errors import ConfigError, DivergenceError, OutOfRangeError, ResourceError
from mtrl.gradients import Combined, GradientSurgery, SurgeryConfig, TaskRows
from mtrl.nn import ExpertsConfig, PaCoConfig, PixelEncoderConfig
from mtrl.reducer import ALONE, Like, Reducer, Sums
from mtrl.rollout import Acting, CollectionConfig, LocalFragments, PolicySnapshot, RuntimeConfig
from mtrl.spaces import ActionSpec
from mtrl.tasks import TaskSet
from mtrl.training import undocumented

from .sac_made import (
    CONTINUOUS,
    DISCRETE,
    LEARNED_TASKS,
    MIXED,
    SMALL,
    agent_of,
    fragment_of,
    resume,
    sums_of,
    task_of,
    torso,
    update,
)


@pytest.mark.parametrize("action", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
@pytest.mark.parametrize("critic", ["categorical", "scalar"])
@pytest.mark.parametrize(("end", "value"), [("truncated", 10.0), ("terminated", 1.0)])
def test_one_state_is_worth_what_theory_says(action: ActionSpec, critic: str, end: str, value: float) -> None:
    # One state, reward 1, discount 0.9, every episode one decision long: worth 1 / (1 - 0.9) = 10 when the
    # clock ends it, and 1 when the problem does.
    tasks = TaskSet([task_of("still", action)])
    config = SACConfig(
        network=NetworkConfig(torso=torso(16), critic=critic, bins=41, value_range=20.0),
        normalisation=NormalisationConfig(returns=False),
        discount=0.9,
        target_rate=1.0,
        learning_rate=2e-2,
        batch_size=16,
    )
    agent = SACAgent(config, tasks, 1)
    agent.ingest(
        fragment_of(tasks, 0, 40, reward=[1.0] * 40, ends=dict.fromkeys(range(40), end), constant=True)
    )
    for _ in range(400):
        metrics = update(agent)
    assert metrics["value/made/still"] == pytest.approx(value, rel=0.03)


def test_the_time_limit_can_be_taken_for_an_end() -> None:
    tasks = TaskSet([task_of("still", CONTINUOUS)])
    agent = SACAgent(
        dataclasses.replace(
            SMALL, bootstrap_truncated=False, normalisation=NormalisationConfig(returns=False)
        ),
        tasks,
        1,
    )
    agent.ingest(fragment_of(tasks, 0, 40, reward=[2.0] * 40, ends=dict.fromkeys(range(40), "truncated")))
    for _ in range(20):
        metrics = update(agent)
    assert metrics["value/made/still"] == 2.0


def test_equal_seeds_give_equal_agents() -> None:
    agents = [agent_of(seed=5) for _ in range(2)]
    for _ in range(4):
        first, second = (update(agent) for agent in agents)
        assert first == second
    assert agents[0].snapshot().same_as(agents[1].snapshot())


def test_a_loaded_agent_goes_on_as_the_original() -> None:
    original, loaded = agent_of(seed=5), SACAgent(SMALL, MIXED, 99)
    for _ in range(3):
        update(original)
    resume(loaded, original)
    for agent in (original, loaded):
        agent.ingest(fragment_of(MIXED, 1, 30, seed=9))
    for _ in range(4):
        assert update(original) == update(loaded)
    assert original.snapshot().same_as(loaded.snapshot())


def test_computing_gradients_changes_no_weight() -> None:
    agent = agent_of()
    agent.due(0, ALONE)
    before = agent.snapshot()
    sums = sums_of(agent)
    assert agent.snapshot().same_as(before)
    assert agent._losses["critic_loss"].shape == (3,)
    for name, value in agent._critic.named_parameters():
        assert not value.numel() or sums[f"critic.{name}"].shape == value.shape
    update(agent)
    assert not agent.snapshot().same_as(before)


def test_the_actor_waits_for_its_turn() -> None:
    agent = agent_of(actor_every=3)
    moved = []
    for _ in range(6):
        before = agent.snapshot()
        update(agent)
        after = agent.snapshot()
        moved.append(any(not np.array_equal(before.tensors[n], after.tensors[n]) for n in before.tensors))
    assert moved == [True, False, False, True, False, False]


def test_a_task_without_a_batch_joins_later() -> None:
    agent = SACAgent(SMALL, MIXED, 1)
    assert agent.due(1000, ALONE) == 0
    with pytest.raises(ConfigError, match="holds 0 transitions"):
        update(agent)
    agent.ingest(fragment_of(MIXED, 1, 40))
    assert "critic_loss/made/jump" in update(agent)
    agent.ingest(fragment_of(MIXED, 2, 40))
    assert {"critic_loss/made/jump", "critic_loss/made/pull"} <= set(update(agent))


def test_whole_numbers_are_as_good_as_fractions() -> None:
    tasks, found = TaskSet([MIXED[2]]), []
    for target in (-1, -1.0):
        agent = agent_of(tasks, exploration=ExplorationConfig(target_entropy=target))
        update(agent)
        found.append(agent.shared_state()["actor"])
    assert same(*found)


def test_temperatures_keep_their_floor() -> None:
    # a target far below any entropy drives the temperature down
    explore = ExplorationConfig(temperature_floor=0.05, temperature_rate=0.5, target_entropy=-50.0)
    agent = agent_of(exploration=explore)
    for _ in range(10):
        metrics = update(agent)
    assert metrics["temperature/made/push"] == pytest.approx(0.05)


@pytest.mark.parametrize("settings", [
    {"network": NetworkConfig(torso=LEARNED_TASKS, critic="scalar")},
    {"precision": "bf16"},
    {"precision": "auto"},
    {"entropy_in_target": True},
    {"network": NetworkConfig(torso=torso(16), critic="scalar", critic_width=24), "value_clip": 5.0},
    {"gradient_clip": 0.0, "actor_every": 1},
])  # fmt: skip
def test_variants_train_to_finite_numbers(settings: Mapping[str, object]) -> None:
    agent = agent_of(**settings)
    for _ in range(3):
        metrics = update(agent)
    assert all(np.isfinite(value) for value in metrics.values())


def test_pixels_train_beside_states() -> None:
    tasks = TaskSet([task_of("arm", CONTINUOUS), task_of("game", DISCRETE, 0, (3, 16, 16))])
    agent = agent_of(tasks, network=NetworkConfig(torso=torso(16), pixels=PixelEncoderConfig("drq", 8)))
    before = agent.snapshot()
    metrics = update(agent)
    assert all(np.isfinite(value) for value in metrics.values())
    after = agent.snapshot()
    assert not np.array_equal(
        before.tensors["observer.pixels.convolutions.0.weight"],
        after.tensors["observer.pixels.convolutions.0.weight"],
    )


@pytest.mark.parametrize("explore", [False, True])
def test_a_copy_acts_alike_alone_and_among_other_tasks(explore: bool) -> None:
    agent = agent_of()
    for _ in range(5):
        update(agent)
    policy = AGENT.policy(agent.snapshot(), MIXED)
    generator = np.random.default_rng(0)
    task = np.array([1, 0, 2, 1])
    states = generator.normal(size=(4, MIXED.layout.state_size)).astype(np.float32)

    def act(rows: list[int]) -> list[object]:
        action = policy.act(
            {"state": states[rows]}, task[rows], policy.initial_state(len(rows)), np.zeros(len(rows), bool),
            acting=Acting(explore), generators=[np.random.default_rng(row) for row in rows],
        )  # fmt: skip
        return [action.continuous, action.discrete, *action.extras.values()]

    for row in range(4):
        for alone, among in zip(act([row]), act([0, 1, 2, 3]), strict=True):
            np.testing.assert_allclose(alone[0], among[row], atol=1e-5)  # type: ignore[index]
    continuous, discrete, *log_probability = act([0, 1, 2, 3])
    assert not np.any(continuous[[0, 3]]), "a discrete task has no continuous part"  # type: ignore[index]
    assert continuous[2, 1] == 0, "masked"  # type: ignore[index]
    assert discrete[1] == discrete[2] == 0  # type: ignore[index]
    assert len(log_probability) == explore
    assert np.isfinite(log_probability).all()


def test_discrete_exploration_holds_its_draws_and_keeps_the_policy_s_probabilities() -> None:
    tasks, copies, steps = TaskSet([task_of("jump", DISCRETE, 2)]), 400, 60
    policy = agent_of(tasks, exploration=ExplorationConfig(hold=8)).policy()
    seen, rows = tasks.layout.zeros(copies), np.zeros(copies, np.int64)
    generators = [np.random.default_rng([5, copy]) for copy in range(copies)]
    state, indices, densities = policy.initial_state(copies), [], []
    for step in range(steps):
        action = policy.act(
            seen, rows, state, np.full(copies, step == 0), acting=Acting(explore=True), generators=generators
        )
        state = action.state
        indices.append(action.discrete)
        densities.append(action.extras["log_probability"])
    index, density = np.array(indices), np.array(densities)
    for choice in range(3):
        chosen = index == choice
        assert chosen.mean() == pytest.approx(float(np.exp(density[chosen][0])), abs=0.05)
    # mean holds of 1, 2, 4 and 8 decisions, and a new draw may give the same action
    kept = (index[1:] == index[:-1]).mean(axis=0)
    holds = state["hold"]
    shares = [float(kept[holds == hold].mean()) for hold in (1, 2, 4, 8)]
    again = sum(float((index == choice).mean()) ** 2 for choice in range(3))
    np.testing.assert_allclose(shares, [1 - (1 - again) / hold for hold in (1, 2, 4, 8)], atol=0.05)


def test_old_rewards_follow_the_scale() -> None:
    tasks = TaskSet([task_of("still", CONTINUOUS)])
    agent = SACAgent(SMALL, tasks, 1)
    terminated = dict.fromkeys(range(40), "terminated")
    agent.ingest(fragment_of(tasks, 0, 40, reward=[5.0] * 40, ends=terminated))
    assert update(agent)["value/made/still"] == pytest.approx(10.0)
    # one larger reward among forty small ones: what was worth 10 is worth 5 from now on
    agent.ingest(fragment_of(tasks, 0, 1, reward=[10.0], ends={0: "terminated"}, seed=3))
    assert update(agent)["value/made/still"] == pytest.approx(5.0, abs=1.6)


def test_observations_are_standardised_by_all_until_their_step_and_then_frozen() -> None:
    agent = SACAgent(SMALL, MIXED, 1)
    first = fragment_of(MIXED, 0, 19)
    agent.ingest(first)
    agent.due(19, ALONE)
    seen = first.observations["state"][:-1, 0]
    np.testing.assert_allclose(agent.snapshot().tensors["observer.mean"][0], seen.mean(axis=0), atol=1e-6)
    second = fragment_of(MIXED, 0, 5, seed=1)
    agent.ingest(second)
    agent.due(24, ALONE)
    seen = np.concatenate([f.observations["state"][:-1, 0] for f in (first, second)])
    mean = agent.snapshot().tensors["observer.mean"]
    np.testing.assert_allclose(mean[0], seen.mean(axis=0), atol=1e-6)
    assert not mean[1:].any(), "other tasks have not come so far"
    agent.ingest(fragment_of(MIXED, 0, 30, seed=2))
    agent.due(54, ALONE)
    np.testing.assert_array_equal(agent.snapshot().tensors["observer.mean"], mean)


class Spoiling(Reducer):
    """Puts a number into the gradient of one parameter, once."""

    def __init__(self, agent: SACAgent, part: str, name: str, value: float) -> None:
        self._weights, self._name, self._value = agent._groups[part].weights, name, value
        self._fact = {"critic": "value", "actor": "entropy"}[part]

    def sums(self, make: Callable[[], Sums], like: Like) -> Sums:
        found = make()
        if self._fact in like:
            parts = self._weights.split(found["gradient"])
            dict(zip(self._weights.named, parts, strict=True))[self._name].view(-1)[0] = self._value
        return found


def test_a_loss_that_is_not_finite_stops_the_run_and_changes_no_weight() -> None:
    agent = agent_of()
    agent.due(0, ALONE)
    before = agent.snapshot()
    spoiling = Spoiling(agent, "critic", "network.torso.stack.linears.0.weight", np.nan)
    with pytest.raises(
        DivergenceError, match=r"gradient norm of critic is nan.*critic.network.torso.stack.linears.0.weight"
    ):
        agent.update(spoiling)
    assert agent.snapshot().same_as(dataclasses.replace(before, version=agent.updates))


def test_an_update_that_is_not_finite_may_be_left_out() -> None:
    agent = agent_of(on_non_finite="skip")
    agent.due(0, ALONE)
    before = agent.snapshot()
    spoiling = Spoiling(agent, "actor", "network.outputs.continuous.bias", np.inf)
    assert agent.update(spoiling) == {"skipped_updates": 1.0}
    assert agent.snapshot().same_as(dataclasses.replace(before, version=1))
    assert update(agent)["skipped_updates"] == 0.0


def test_settings_outside_their_range_are_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"agent.discount=1.0"):
        SACConfig(discount=1.0)
    with pytest.raises(ConfigError, match=r"capacity=8 is below agent.batch_size=64"):
        SACConfig(replay=ReplayConfig(capacity=8))
    with pytest.raises(ConfigError, match="value_clip is for the scalar critic"):
        SACConfig(value_clip=1.0, network=NetworkConfig(critic="categorical"))
    with pytest.raises(ConfigError, match="fp32"):
        SACConfig(precision="int8")
    with pytest.raises(OutOfRangeError, match="refresh_at"):
        NormalisationConfig(refresh_at=(5, 5))


def test_it_learns_to_balance_a_pole() -> None:
    tasks = registry.task_set("gym/CartPole-v1")
    config = SACConfig(
        network=NetworkConfig(torso=torso(64), critic="categorical", bins=51),
        replay=ReplayConfig(capacity=5000),
        discount=0.98,
        learning_rate=2e-3,
        normalisation=NormalisationConfig(refresh_at=(300,)),
    )
    agent = SACAgent(config, tasks, 1)
    settings = CollectionConfig(copies=4, steps=10, stagger=False)
    source = LocalFragments(tasks, RuntimeConfig(), settings, PolicySnapshot("random"), 1)
    lengths: list[int] = []
    for number, fragment in enumerate(islice(source.stream(), 75)):
        agent.ingest(fragment)
        if number >= 8:
            for _ in range(12):
                update(agent)
            source.publish(agent.snapshot())
        lengths.append(int(fragment.terminated.sum()))
    source.close()
    # falls of 4 poles in 10 decisions: about 1.8 at random, where a pole stands for 22 decisions; one that
    # stands for 60 falls 0.67 times
    assert sum(lengths[:8]) >= 10
    assert sum(lengths[-20:]) <= 20 * 0.67


def test_surgery_on_one_task_changes_no_bit() -> None:
    tasks = TaskSet([task_of("still", CONTINUOUS, 3)])
    plain, cut = (
        agent_of(tasks, explicit=False, gradients=SurgeryConfig(method=method, part="both"))
        for method in ("sum", "pcgrad")
    )
    for _ in range(4):
        update(plain)
        update(cut)
    for name, expected in plain.snapshot().tensors.items():
        np.testing.assert_array_equal(cut.snapshot().tensors[name], expected, err_msg=name)


@pytest.mark.parametrize("row_method", ["backward", "loop"])
def test_rows_of_tasks_add_up_to_the_plain_gradient(row_method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SurgeryConfig(method="pcgrad", part="both", row_method=row_method)
    plain, cut = agent_of(), agent_of(gradients=config)
    combine, kept = GradientSurgery.combine, []

    def watched(surgery: GradientSurgery, rows: TaskRows, losses: torch.Tensor) -> Combined:
        dense = {name: own.dense(3) for name, own in rows.owned.items()}
        kept.append({name: value.clone() for name, value in (rows.shared | dense).items()})
        assert any("torso" in name for name in rows.shared)
        return combine(surgery, rows, losses)

    monkeypatch.setattr(GradientSurgery, "combine", watched)
    sums = sums_of(plain)
    assert set(sums) == set(sums_of(cut))
    for part, rows in zip(("critic", "actor"), kept, strict=True):
        for name, found in rows.items():
            assert found.shape[0] == 3
            expected = sums[f"{part}.{name}"]
            torch.testing.assert_close(found.sum(0), expected, rtol=1e-4, atol=1e-6, msg=name)


def test_temperatures_follow_the_entropy_at_the_weights_as_they_are() -> None:
    uphill = SurgeryConfig(method="sum", part="both", perturbation=0.5)
    plain, moved = sums_of(agent_of()), sums_of(agent_of(gradients=uphill))
    torch.testing.assert_close(moved["temperature.log"], plain["temperature.log"])
    name = next(name for name in plain if name.startswith("actor."))
    assert not torch.allclose(moved[name], plain[name], rtol=1e-3)


def test_cosines_are_told_once_and_named_by_part() -> None:
    agent = agent_of(gradients=SurgeryConfig(method="cagrad", part="both"))
    for _ in range(3):
        metrics = update(agent)
    assert -1 <= metrics["gradients/critic/cosine_min"] <= 1
    cosines = agent.task_cosines()
    assert set(cosines) == {"critic", "actor"}
    np.testing.assert_allclose(np.diag(cosines["critic"]), 1.0, atol=1e-6)
    assert agent.task_cosines() == {}


def test_a_share_of_zero_silences_a_task() -> None:
    agent = agent_of()
    agent.set_task_shares(np.array([0.5, 0.5, 0.0]))
    heads = sums_of(agent)["critic.network.outputs.continuous.weight"]
    assert heads[:, 0].abs().sum() > 0 and not heads[:, 1].any(), "heads of push, and of pull"


def test_surgery_saved_and_loaded_goes_on_alike() -> None:
    config = dataclasses.replace(SMALL, gradients=SurgeryConfig(method="famo", every=2))
    original, loaded = agent_of(config=config, seed=5), SACAgent(config, MIXED, 99)
    for _ in range(3):
        update(original)
    resume(loaded, original)
    for agent in (original, loaded):
        agent.ingest(fragment_of(MIXED, 1, 30, seed=9))
    for _ in range(4):
        assert update(original) == update(loaded)


def same(first: object, second: object) -> bool:
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


def routed(**changes: object) -> NetworkConfig:
    parts = ExpertsConfig(**{"routed": 4, "chosen": 2, "hidden": 8, **changes})  # type: ignore[arg-type]
    return NetworkConfig(torso=torso(12, kind="experts", experts=parts), bins=11)


@pytest.mark.parametrize("row_method", ["backward", "loop"])
def test_loads_of_experts_go_on_alike_under_surgery(row_method: str) -> None:
    config = dataclasses.replace(
        SMALL, network=routed(), gradients=SurgeryConfig("pcgrad", row_method=row_method)
    )
    original, loaded = agent_of(config=config), SACAgent(config, MIXED, 1)
    for _ in range(2):
        update(original)
    resume(loaded, original)
    for agent in (original, loaded):
        update(agent)
    for part in ("actor", "critic", "target", "parts"):
        assert same(original.shared_state()[part], loaded.shared_state()[part]), part


@pytest.mark.parametrize("settings", [
    SurgeryConfig("pcgrad", row_method="backward"),
    SurgeryConfig("pcgrad", row_method="loop"),
    SurgeryConfig("pcgrad", perturbation=0.01),
    SurgeryConfig("pcgrad", memory_mb=1e-6),
    SurgeryConfig("famo"),
])  # fmt: skip
def test_a_balance_loss_counts_beside_any_surgery(settings: SurgeryConfig) -> None:
    plain, cut = (agent_of(network=routed(switch=50.0), gradients=how) for how in (SurgeryConfig(), settings))
    unbalanced = agent_of(network=routed(), gradients=settings)
    routers = [name for name, _ in plain._critic.named_parameters() if "router" in name]
    expected, found, without = (sums_of(agent) for agent in (plain, cut, unbalanced))
    for name in (f"critic.{router}" for router in routers):
        # of the sum over three tasks the balance loss is a part three times, and by far the largest
        beside = found[name] - without[name]
        torch.testing.assert_close(beside, expected[name], rtol=0.02, atol=0.02)


def test_a_surgery_that_meets_no_number_while_tasks_join_is_left_out() -> None:
    config = dataclasses.replace(SMALL, on_non_finite="skip", gradients=SurgeryConfig("pcgrad"))
    agent = SACAgent(config, MIXED, 1)
    agent.ingest(fragment_of(MIXED, 0, 40))
    update(agent)
    for k in (1, 2):
        agent.ingest(fragment_of(MIXED, k, 40))
    bias = agent._critic.network.outputs["discrete"].bias
    with torch.no_grad():
        bias[0, 0, 0] = torch.nan
    assert update(agent) == {"skipped_updates": 1.0}
    with torch.no_grad():
        bias[0, 0, 0] = 0.0
    assert update(agent)["skipped_updates"] == 0.0


def test_what_is_not_trained_stays_while_tasks_join_too() -> None:
    config = dataclasses.replace(SMALL, gradients=SurgeryConfig("pcgrad", trained_share=0.3))
    agent = SACAgent(config, MIXED, 1)
    weight = agent._critic.network.torso.stack.linears[0].weight
    before = weight.detach().clone()
    agent.ingest(fragment_of(MIXED, 0, 40))
    update(agent)
    agent.ingest(fragment_of(MIXED, 1, 40))
    agent.ingest(fragment_of(MIXED, 2, 40))
    update(agent)
    assert 0.1 < float((weight != before).double().mean()) < 0.4


def test_one_task_alone_has_no_logits_to_move() -> None:
    tasks = TaskSet([task_of("still", CONTINUOUS)])
    assert update(agent_of(tasks, gradients=SurgeryConfig("famo")))["skipped_updates"] == 0.0


def test_a_task_that_ran_away_has_no_part_in_the_update() -> None:
    mixture = torso(12, kind="paco", paco=PaCoConfig(sets=3, extreme_loss=1e-6))
    agent = agent_of(network=NetworkConfig(torso=mixture, bins=11), actor_every=2)
    agent.updates = 1
    sums = sums_of(agent)
    assert bool((agent._losses["critic_loss"] > 1e-6).all())
    assert not any(gradient.any() for gradient in sums.values())


@pytest.mark.parametrize(
    "settings", [SurgeryConfig(), SurgeryConfig("pcgrad", part="both", row_method="backward")]
)
def test_tasks_that_all_see_pixels_learn(settings: SurgeryConfig) -> None:
    tasks = TaskSet([task_of("arm", CONTINUOUS, 3, (3, 16, 16)), task_of("game", DISCRETE, 0, (3, 16, 16))])
    network = NetworkConfig(torso=torso(8), bins=11, pixels=PixelEncoderConfig("drq", 4))
    agent = agent_of(tasks, network=network, gradients=settings, batch_size=4)
    assert update(agent)["skipped_updates"] == 0.0


def test_losses_are_computed_where_the_networks_are() -> None:
    # on a device without numbers, where anything that stayed on the processor is an error
    agent, meta = (
        agent_of(network=NetworkConfig(torso=torso(8, output="shared"), bins=11)),
        torch.device("meta"),
    )
    sums_of(agent)
    held = agent._batch
    assert held is not None

    def over_there(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return value.to(meta)
        if isinstance(value, Mapping):
            return {name: Bucket(b.values.to(meta), b.rows.to(meta)) for name, b in value.items()}
        return value.to(meta) if isinstance(value, BatchTasks) else value

    batch = TrainingBatch(**{name: over_there(value) for name, value in vars(held).items()})  # type: ignore[arg-type]
    actor, critic = agent._actor.to(meta), agent._critic.to(meta)
    noise = torch.empty(2, batch.samples, 2, device=meta)
    policy = actor(batch.next_observation, batch.tasks, batch.samples)
    features = critic.observer(batch.next_observation, batch.tasks.count, batch.samples)
    values = partial(critic, features, batch.tasks)
    target = td_target(agent._config, batch, noise, policy, values, critic.head)
    losses, features = critic_losses(critic, batch, target)
    for found in (losses, *actor_losses(actor, critic, features, batch, noise)):
        assert found.shape == (3,) and found.device == meta


TORSOS = ["mlp", "multi_head", "residual", "soft_modules", "paco", "moore", "care", "film", "experts"]


@pytest.mark.parametrize(
    ("kind", "precision"),
    [*((kind, "fp32") for kind in TORSOS), ("multi_head", "bf16"), ("moore", "bf16"), ("experts", "bf16")],
)
def test_every_torso_learns_under_surgery_and_acts_from_its_snapshot(kind: str, precision: str) -> None:
    agent = agent_of(
        network=NetworkConfig(torso=torso(16, kind=kind, depth=2), bins=51),
        gradients=SurgeryConfig(method="pcgrad"),
        precision=precision,
        diagnostics_every=2,
    )
    for _ in range(2):
        metrics = update(agent)
    assert all(np.isfinite(value) for value in metrics.values())
    assert not undocumented(metrics, METRICS)
    assert 0 <= metrics.get("torso/critic/dormant_units", 0.0) <= 1
    assert AGENT.policy(agent.snapshot(), MIXED).version == 2


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_an_agent_of_any_device_goes_on_elsewhere(device: str) -> None:
    agent = agent_of(device=device, precision="bf16", gradients=SurgeryConfig(method="pcgrad"))
    for _ in range(3):
        metrics = update(agent)
    assert all(np.isfinite(value) for value in metrics.values())
    loaded = agent_of(seed=2, gradients=SurgeryConfig(method="pcgrad"))
    resume(loaded, agent)
    for name, expected in agent.snapshot().tensors.items():
        np.testing.assert_array_equal(loaded.snapshot().tensors[name], expected)
    update(loaded)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"agent\.device=cuda:99 is not there"):
        agent_of(device="cuda:99")
    with pytest.raises(ConfigError, match=r"'cpu', 'cuda', 'cuda:N' or 'auto'; got 'cpuu'"):
        agent_of(device="cpuu")
