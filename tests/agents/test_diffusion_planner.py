"""Planning states beside actions, and asking for good episodes: by hand, learned, distilled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mtrl.agents.diffusion import (
    AGENT,
    DiffusionAgent,
    DiffusionConfig,
    DiffusionSampler,
    PlanSettings,
    ReturnSettings,
)
from mtrl.agents.diffusion.objective import inverse_loss
from mtrl.data import Trajectories
from mtrl.distillation import (
    SAME_NOISE,
    DistillationConfig,
    Student,
    export_onnx,
    golden_cases,
    require_reference_parity,
)
from mtrl.errors import ConfigError, UnsupportedError
from mtrl.nn import ChunkNetwork, ChunkShape
from mtrl.reducer import ALONE
from mtrl.rollout import Acting, Execution, generator_for
from mtrl.tasks import TaskSet
from mtrl.training import Datasets, Needs, Offline

from .demonstrations import task

STRIDE, CHUNK = 2, 3
CONFIG = DiffusionConfig(
    network=ChunkShape(width=64, blocks=2, chunk=CHUNK, embedding=4),
    plan=PlanSettings(stride=STRIDE),
    returns=ReturnSettings(dropout=0.2, target=0.95),
    sampler_steps=5,
    execution=Execution(steps=2),
    batch_size=128,
    warmup=20,
    decay_updates=500,
)
INVERSE = replace(CONFIG, plan=PlanSettings(stride=STRIDE, inverse=True), decay_updates=400)


def tasks() -> TaskSet:
    """A line to walk along, and a plane, of which the second dimension is the first's copy."""
    return TaskSet([task("made/line", 1, 1), task("made/plane", 2, 1)])


def walks(state: int, episodes: int = 40, length: int = 12) -> Trajectories:
    """Half of the episodes walk right and are paid for it, half walk left; x' = x + a, begun anywhere."""
    draws = np.random.default_rng(state)
    signs = np.where(np.arange(episodes) % 2 == 0, 1.0, -1.0)
    actions = np.repeat(0.5 * signs, length) * draws.uniform(0.8, 1.2, episodes * length)
    moves = actions.reshape(episodes, length)
    begins = draws.uniform(-1, 1, (episodes, 1))
    states = begins + np.concatenate([np.zeros((episodes, 1)), moves.cumsum(axis=1)], axis=1)
    ends = np.arange(episodes * length) % length == length - 1
    return Trajectories(
        observations={"state": np.repeat(states.reshape(-1, 1), state, axis=1).astype(np.float32)},
        actions=actions.astype(np.float32)[:, None],
        labels=actions.astype(np.float32)[:, None],
        rewards=np.repeat(signs, length).astype(np.float32),
        terminated=np.zeros(len(actions), dtype=bool),
        truncated=ends,
        success=ends & np.repeat(signs > 0, length),
        offsets=np.arange(episodes + 1) * length,
        start_id=np.arange(episodes),
    )


def data() -> dict[int, Trajectories]:
    return {0: walks(1), 1: walks(2)}


def trained(config: DiffusionConfig = CONFIG, updates: int = 500) -> DiffusionAgent:
    made = AGENT.build(config, tasks(), 0)
    made.ingest(Datasets(data()))
    for _ in range(made.due(updates, ALONE)):
        made.update(ALONE)
    return made


@pytest.fixture(scope="module")
def planner() -> DiffusionAgent:
    """A trained one."""
    return trained()


def test_quality_moves_the_embedding_of_the_task_and_can_be_folded_into_it() -> None:
    torch.manual_seed(0)
    net = ChunkNetwork(CONFIG.network, tasks().layout, reads_quality=True).requires_grad_(False)
    assert net.quality is not None
    states, index = torch.randn(2, 1, 2), torch.tensor([0, 1])
    hidden = net.condition(states, index)
    torch.testing.assert_close(net.condition(states, index, torch.full((2,), torch.nan)), hidden)
    # (2 x 0.9 - 1, known)
    moved = net.condition(states, index, torch.full((2,), 0.9))
    expected = net.quality.weight @ torch.tensor([0.8, 1.0])
    torch.testing.assert_close(moved[:, 2:] - hidden[:, 2:], expected.expand(2, -1))
    folded = net.aiming_at(0.9)
    torch.testing.assert_close(folded.condition(states, index), moved)
    assert set(folded.state_dict()) == set(net.state_dict()) - {"quality.weight"}


def test_what_is_learned_from_a_decision_by_hand() -> None:
    made = AGENT.build(CONFIG, tasks(), 0)
    made.ingest(Datasets(data()))
    made.due(1, ALONE)
    batch = made._data._dataset.gather(np.array([[10], [480]]))
    fields = made._with_states(batch)
    part, network = data()[0], made._network
    # decision 10 of 12: states 12, 14 and 16 decisions after the start, of which the last two are not there
    states = torch.as_tensor(part.observations["state"][[12, 12, 12]])[None]
    padded = torch.cat([states, torch.zeros_like(states)], dim=-1)
    encoded = (padded - network.mean[0]) / network.scale[0] * 0.5 * torch.tensor([1.0, 0.0])
    torch.testing.assert_close(fields["chunk"][0, 0, :, 1:], encoded[0])
    torch.testing.assert_close(fields["chunk"][0, 0, :, :1], batch.fields["chunk"][0, 0])
    # two decisions are left, and one state; of one dimension it weighs half an action's
    expected = torch.tensor([[1.0, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(fields["real"][0, 0], expected)
    # of two dimensions a quarter each
    torch.testing.assert_close(fields["real"][1, 0, 0], torch.tensor([1.0, 0.25, 0.25]))
    # the 20 right-going episodes of 40 are the better half
    assert {round(float(q), 3) for q in made._data._dataset._quality} == {0.25, 0.75}


def test_guidance_goes_on_beyond_what_the_return_changes() -> None:
    made, once = trained(updates=3), np.random.default_rng(0)
    network = made._average
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    one = replace(CONFIG, objective="regression")
    states = once.normal(size=(3, 1, 2)).astype(np.float32)
    index, z = np.zeros(3, dtype=np.int64), np.zeros((3, 0), dtype=np.float32)

    def plan(**returns: float) -> np.ndarray:
        settings = replace(CONFIG.returns, **returns)
        return DiffusionSampler(replace(one, returns=settings), network).sample(states, index, z)[..., :1]

    aimed = plan(guidance=1.0)
    free = network(
        network.condition(torch.from_numpy(states), torch.from_numpy(index)),
        torch.from_numpy(index),
        torch.zeros(3, CHUNK, 3),
        torch.zeros(3),
    )[..., :1].detach()
    np.testing.assert_allclose(plan(guidance=0.0), free.clamp(-1, 1), atol=1e-5)
    np.testing.assert_allclose(
        plan(guidance=1.7), (free + 1.7 * (torch.from_numpy(aimed) - free)).clamp(-1, 1), atol=1e-5
    )
    assert np.abs(aimed - free.numpy()).max() > 1e-3


def test_it_does_what_is_asked_for_and_plans_where_that_leads(planner: DiffusionAgent) -> None:
    count = 60
    states = np.zeros((count, 1, 2), dtype=np.float32)
    z = np.random.default_rng(2).normal(size=(count, CHUNK * 3)).astype(np.float32)
    for asked, sign in ((0.75, 1.0), (0.25, -1.0)):
        returns = replace(CONFIG.returns, target=asked, guidance=1.0)
        sampler = DiffusionSampler(replace(CONFIG, returns=returns), planner._average)
        assert (sampler.spec.planned, sampler.spec.stride) == (2, STRIDE)
        for k in range(2):
            rows = sampler.sample(states, np.full(count, k), z)
            assert (np.abs(rows[:, :, 0] - sign * 0.5) < 0.2).mean() > 0.9
            # half a step a decision: 1, 2 and 3 after 2, 4 and 6 decisions
            far = np.median(rows[:, :, 1], axis=0) / (sign * np.arange(1, 4))
            assert np.abs(far - 1.0).max() < 0.25
            assert (rows[:, :, 2] == 0).all() == (k == 0), "the line has one dimension"


def test_actions_towards_a_state_past_the_end_are_not_learned_by_the_head() -> None:
    made = AGENT.build(INVERSE, tasks(), 0)
    made.ingest(Datasets(data()))
    made.due(1, ALONE)
    fields, network = (
        made._with_states(made._data._dataset.gather(np.array([[8, 9, 10, 11], [488, 489, 490, 491]]))),
        made._network,
    )
    states, task_index = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
    chunk, real = fields["chunk"][0], fields["real"][0]
    # a new head infers 0; decisions 8 to 10 of 12 have two, two, one state of those after 2 and 4 decisions
    squares = chunk[:, :, 0] ** 2
    expected = [squares[0].mean(), squares[1, :2].mean(), squares[2, :2].mean(), torch.tensor(0.0)]
    found = inverse_loss(network, states, task_index, chunk, real)
    torch.testing.assert_close(found, torch.stack(expected))


def test_what_is_carried_out_is_inferred_from_the_planned_states() -> None:
    made = trained(INVERSE, updates=400)
    sampler = DiffusionSampler(INVERSE, made._average)
    states = np.linspace(-1, 1, 40, dtype=np.float32)[:, None, None].repeat(2, axis=2)
    states[:, :, 1] = 0
    z = np.random.default_rng(3).normal(size=(40, CHUNK * 3)).astype(np.float32)
    index = np.zeros(40, dtype=np.int64)
    rows = sampler.sample(states, index, z)
    network, tensor = made._average, torch.from_numpy
    planned = network.encode_states(tensor(rows[:, :, 1:]), tensor(index))
    inferred = network.inferred(tensor(states[:, 0]), planned, tensor(index)).detach()
    np.testing.assert_allclose(rows[:, :, :1], inferred.clamp(-1, 1), atol=1e-3)
    # x' = x + a: two actions to the first of the true states
    true = data()[0].observations["state"].reshape(40, 13, 1)
    padded = tensor(np.concatenate([true, np.zeros_like(true)], axis=2))
    ends = network.encode_states(padded[:, [2, 4, 6]], tensor(index))
    found = network.inferred(padded[:, 0], ends, tensor(index)).detach().numpy()
    assert np.abs(found[:, :2, 0].sum(1) - (true[:, 2, 0] - true[:, 0, 0])).mean() < 0.1
    ahead, pull = np.full_like(rows, 0.25), np.array([1.0, 0.5, 0.0], dtype=np.float32)
    bound = sampler.blend(states, index, z, ahead, pull)
    np.testing.assert_allclose(bound[:, 0, 0], 0.25)
    policy = AGENT.policy(made.snapshot(), tasks())
    np.testing.assert_array_equal(policy.sampler.sample(states, index, z), rows)
    with pytest.raises(ConfigError, match=r"plan\.stride=0"):
        PlanSettings(inverse=True)


def test_the_plan_is_recorded_with_its_age(planner: DiffusionAgent) -> None:
    policy = AGENT.policy(planner.snapshot(), tasks())
    assert [(extra.name, extra.shape) for extra in policy.extras] == [("plan", (CHUNK, 2)), ("plan_age", ())]
    state, index = policy.initial_state(2), np.array([0, 1])
    ages, plans = [], []
    for step in range(3):
        action = policy.act(
            {"state": np.zeros((2, 2), dtype=np.float32)},
            index,
            state,
            np.full(2, step == 0),
            acting=Acting(),
            generators=[generator_for(0, "made/line", key) for key in range(2)],
        )
        state = action.state
        assert action.continuous.shape == (2, 1)
        ages.append(action.extras["plan_age"].tolist()), plans.append(action.extras["plan"])
    assert ages == [[0, 0], [1, 1], [0, 0]]
    np.testing.assert_array_equal(plans[0], plans[1])


def test_a_student_keeps_the_actions_of_what_was_asked_for(planner: DiffusionAgent) -> None:
    policy = AGENT.policy(planner.snapshot(), tasks())
    config = DistillationConfig(network=CONFIG.network, execution=CONFIG.execution, updates=150)
    made = SAME_NOISE.build(config, tasks(), 0, parents={"teacher": policy})
    made.ingest(Datasets(data()))
    for _ in range(made.due(150, ALONE)):
        made.update(ALONE)
    student: Student = made.student
    z = np.random.default_rng(5).normal(size=(50, CHUNK * 3)).astype(np.float32)
    states, index = np.zeros((50, 1, 2), dtype=np.float32), np.repeat([0, 1], 25)
    rows, chunk = policy.sampler.sample(states, index, z), student.sample(states, index, z)
    assert chunk.shape == (50, CHUNK, 1) and np.abs(chunk - rows[:, :, :1]).mean() < 0.1
    golden = golden_cases(student, tasks().layout, seed=0, per_task=4)
    require_reference_parity(student, golden)
    folded = student.folded()(*(torch.as_tensor(golden[name]) for name in ("state", "task", "z")))
    np.testing.assert_allclose(folded.detach(), golden["chunk"], atol=1e-5)
    assert len(export_onnx(student)) > 1000


def test_failures_are_learned_from_only_with_returns() -> None:
    needs = AGENT.needs(CONFIG, tasks())
    assert needs == Needs(offline=Offline(rewards=True, failures=True), parents=("init_from",))
    plain = replace(CONFIG, returns=ReturnSettings())
    kept = AGENT.build(plain, tasks(), 0)._select(walks(1))
    assert kept.episode_count == 20 and AGENT.build(CONFIG, tasks(), 0)._select(walks(1)).episode_count == 40
    twin = AGENT.twin(CONFIG)
    assert twin.plan.stride == 0 and twin.returns.dropout == 0


def test_consistency_refuses_planned_states(planner: DiffusionAgent) -> None:
    from mtrl.agents.diffusion import CONSISTENCY

    config = DistillationConfig(method="consistency", network=CONFIG.network, execution=CONFIG.execution)
    with pytest.raises(UnsupportedError, match=r"agent\.plan\.stride"):
        CONSISTENCY.build(config, tasks(), 0, parents={"teacher": AGENT.policy(planner.snapshot(), tasks())})


def test_episodes_of_equal_returns_are_refused() -> None:
    paid = {k: replace(part, rewards=np.ones_like(part.rewards)) for k, part in data().items()}
    made = AGENT.build(CONFIG, tasks(), 0)
    made.ingest(Datasets({0: data()[0], 1: paid[1]}))
    with pytest.raises(ConfigError, match=r"those of made/plane are all equal.*demonstrations.mixture"):
        made.due(1, ALONE)
