"""The rivals of the SAC benchmark, each trained in a process of its own, window by window on demand.

    python benchmarks/compared/sac_rivals.py mtrl --threads 2

Every line on standard input, a number of environment steps, is answered by the steps per second of
training that many. All three take ten steps of one environment, then ten updates, and see the same task.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

import torch

from mtrl.launch.compose import compose
from mtrl.pipeline import agent_of, task_set_of
from mtrl.rollout import CollectionConfig, GymnasiumView, LocalFragments
from mtrl.training import (
    Checkpoints,
    Clock,
    JsonlTracker,
    OnlineConfig,
    RunRecorder,
    StreamSource,
    Trackers,
    learn,
)

TASK = "metaworld/reach-v3"
BATCH, WIDTH, CAPACITY, DISCOUNT, RATE = 256, 256, 100_000, 0.99, 3e-4
TOGETHER = 10
"""Steps between two groups of as many updates."""
WARMUP = 600
"""Steps of random play before the first update."""
SETTLE = 100
"""Steps with updates before the first window."""
ENDLESS = 100_000_000
"""Steps that nobody waits for."""

OURS = (
    "agent=sac",
    f"tasks=[{TASK}]",
    f"agent.network.torso.width={WIDTH}",
    "agent.network.torso.depth=2",
    "agent.network.torso.layer_norm=false",
    "agent.network.critic=scalar",
    "agent.normalisation.observations=false",
    "agent.normalisation.returns=false",
    "agent.exploration.initial_temperature=1",
    "agent.exploration.target_entropy=-1",
    "agent.exploration.temperature_floor=0",
    f"agent.exploration.temperature_rate={RATE}",
    "agent.exploration.log_std_low=-20",
    "agent.exploration.log_std_high=2",
    f"agent.replay.capacity={CAPACITY}",
    "agent.replay.save=false",
    f"agent.batch_size={BATCH}",
    "agent.replay_ratio=1",
    f"agent.discount={DISCOUNT}",
    "agent.target_rate=0.005",
    f"agent.learning_rate={RATE}",
    "agent.gradient_clip=0",
    "agent.actor_every=1",
    "agent.entropy_in_target=true",
    "agent.precision=fp32",
)
"""Settings of `mtrl train` under which our agent is the SAC of both peers: actor and critics every update,
scalar critics, no normalisation."""


class Windows:
    """Answers requests for windows from within a training loop that owns the process."""

    def __init__(self, requests: TextIO, answers: TextIO, facts: Callable[[], Mapping[str, int]]) -> None:
        """`facts` are sent once, before the first window."""
        self._requests, self._answers, self._facts = requests, answers, facts
        self._began, self._from, self._until = 0.0, 0, WARMUP + SETTLE
        self._asked = False
        self.over = False

    def reached(self, step: int) -> None:
        """Reports the loop's progress; blocks between windows, until the next is requested."""
        if self.over or step < self._until:
            return
        if self._asked:
            self._answer({"steps_per_second": (step - self._from) / (time.perf_counter() - self._began)})
        else:
            self._answer(dict(self._facts()))
        line = self._requests.readline()
        if not line:
            self.over = True
            return
        self._asked, self._from, self._until = True, step, step + int(line)
        self._began = time.perf_counter()

    def _answer(self, record: Mapping[str, float]) -> None:
        self._answers.write(json.dumps(record) + "\n")
        self._answers.flush()


def train_mtrl(requests: TextIO, answers: TextIO) -> None:
    """`mtrl train agent=sac`: the same loop, source of fragments and trackers."""
    config = compose(OURS, command="train")
    tasks = task_set_of(config)
    _, factory, settings = agent_of(config)
    agent = factory.build(settings, tasks, 1)
    collection = CollectionConfig(copies=1, steps=TOGETHER)

    def facts() -> dict[str, int]:
        tensors = agent.snapshot().tensors
        return {"actor_parameters": sum(v.size for k, v in tensors.items() if k.endswith(("weight", "bias")))}

    windows = Windows(requests, answers, facts)
    with tempfile.TemporaryDirectory() as place:
        clock = Clock.of_steps(
            OnlineConfig(steps=ENDLESS, warmup=WARMUP, log_every=5000, checkpoint_every=ENDLESS), WARMUP
        )
        source = StreamSource(
            lambda snapshot, steps: LocalFragments(tasks, config.runtime, collection, snapshot, 1),
            tasks.names,
            WARMUP,
        )
        recorder = RunRecorder(
            clock,
            Trackers([JsonlTracker(Path(place))]),
            Checkpoints(Path(place)),
            tasks.names,
            stop=lambda: windows.over,
            on_progress=lambda run, _: windows.reached(run.steps),
        )
        learn(agent, source, recorder)


def train_sb3(requests: TextIO, answers: TextIO) -> None:
    """Stable-Baselines3's own loop."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback

    model = SAC(
        "MlpPolicy",
        GymnasiumView(TASK),
        learning_rate=RATE,
        buffer_size=CAPACITY,
        learning_starts=WARMUP,
        batch_size=BATCH,
        gamma=DISCOUNT,
        train_freq=TOGETHER,
        gradient_steps=TOGETHER,
        policy_kwargs={"net_arch": [WIDTH, WIDTH]},
        device="cpu",
        seed=1,
    )
    windows = Windows(requests, answers, lambda: {"actor_parameters": _size(model.actor)})

    class Watch(BaseCallback):
        # updates follow the callback: a step counts when its updates are done
        def _on_rollout_start(self) -> None:
            windows.reached(self.num_timesteps)

        def _on_step(self) -> bool:
            return not windows.over

    model.learn(ENDLESS, callback=Watch())


def train_rllib(requests: TextIO, answers: TextIO) -> None:
    """RLlib's SAC in the driver's process: local env runner, local learner, new API stack, uniform replay."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.rllib.algorithms.sac import SACConfig
    from ray.tune.registry import register_env

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    register_env("shared", lambda _: GymnasiumView(TASK))
    config = (
        SACConfig()
        .environment("shared")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=1, rollout_fragment_length=TOGETHER)
        .learners(num_learners=0, num_gpus_per_learner=0)
        .rl_module(model_config={"fcnet_hiddens": [WIDTH, WIDTH], "fcnet_activation": "relu"})
        .training(
            actor_lr=RATE,
            critic_lr=RATE,
            alpha_lr=RATE,
            gamma=DISCOUNT,
            train_batch_size_per_learner=BATCH,
            # transitions replayed per transition collected: one update per step
            training_intensity=BATCH,
            num_steps_sampled_before_learning_starts=WARMUP,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": CAPACITY},
        )
        .reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=TOGETHER)
        .debugging(seed=1, log_level="ERROR")
    )
    algorithm = config.build_algo()
    module = algorithm.get_module()
    windows = Windows(requests, answers, lambda: {"actor_parameters": _size(module.pi_encoder, module.pi)})
    try:
        while not windows.over:
            result = algorithm.train()
            windows.reached(int(result["num_env_steps_sampled_lifetime"]))
    finally:
        algorithm.stop()
        ray.shutdown()


def _size(*networks: torch.nn.Module) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


RIVALS = {"mtrl": train_mtrl, "sb3": train_sb3, "rllib": train_rllib}


def main() -> None:
    """Trains one rival until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    # libraries print what they like; only answers go to the benchmark
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    RIVALS[arguments.rival](sys.stdin, answers)


if __name__ == "__main__":
    main()
