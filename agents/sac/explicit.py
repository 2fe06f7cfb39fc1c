"""An update of plain perceptrons with every derivative written out; derivatives without a source are own
derivations, equation numbers are those of Haarnoja et al. 2018.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mtrl.nn import ExplicitNetwork, full_precision, scatter_rows, select_rows
from mtrl.reducer import Sums

from .config import SACConfig
from .gradients import OptimizerGroup, UpdateContext
from .losses import TrainingBatch, soft_value, td_target
from .networks import BatchTasks, ByKind, MixedPrecisionNetworks

Raw = Mapping[str, Tensor]
"""Output -> [N, K of the output, B, size]"""


class ExplicitGradientComputation:
    """`GradientComputation` without autograd: the same losses and gradients up to rounding, for less
    time at the sizes of our experiments (docs/decisions/0013).

    It serves batches of all tasks, each of which has a state, where actor and critics are what
    `ExplicitNetwork` serves, neither is under surgery, no weight is frozen, values are not clipped, and all
    of it is on the CPU. Everything else is autograd's.
    """

    @staticmethod
    def of(
        config: SACConfig,
        networks: MixedPrecisionNetworks,
        groups: Mapping[str, OptimizerGroup],
        generator: torch.Generator,
    ) -> ExplicitGradientComputation | None:
        """None where the networks or the settings are of another kind."""
        learned = (networks.actor, networks.critic)
        serves = (
            config.explicit
            and not config.value_clip
            and generator.device.type == "cpu"
            and all(group.surgery is None for group in groups.values())
            and all(value.requires_grad for network in learned for value in network.parameters())
            and all(ExplicitNetwork.serves(n.network) and n.observer.pixels is None for n in learned)
        )
        return ExplicitGradientComputation(config, networks, groups, generator) if serves else None

    def __init__(
        self,
        config: SACConfig,
        networks: MixedPrecisionNetworks,
        groups: Mapping[str, OptimizerGroup],
        generator: torch.Generator,
    ) -> None:
        """See `of`, which checks the networks; `generator` draws the actions' noise."""
        self._config, self._networks, self._groups, self._generator = config, networks, groups, generator
        used, weights = networks.used, networks.weights
        # where the copies are in bf16, so are their gradients, which `copy_` converts
        self._gradients = {
            name: weights[name].gradient if used is weights else torch.zeros_like(used[name].vector.detach())
            for name in ("actor", "critic")
        }
        self._actor = ExplicitNetwork(networks.actor.network, used["actor"], self._gradients["actor"])
        self._critic = ExplicitNetwork(networks.critic.network, used["critic"], self._gradients["critic"])
        self._target = ExplicitNetwork(networks.target.network, used["target"])
        self._states = networks.actor.observer.size
        self._tasks = networks.actor.observer.mean.shape[0]

    def serves(self, batch: TrainingBatch) -> bool:
        """Whether the batch holds all tasks."""
        return batch.tasks.count == self._tasks

    def critic(self, batch: TrainingBatch, context: UpdateContext) -> Sums:
        """Writes the critics' gradient into their group; returns "losses" and "value" [K] of all ranks."""
        group, weights = self._groups["critic"], _weights(context)

        @torch.no_grad()
        def compute() -> Sums:
            target = self._td_target(batch, batch.noise(self._generator))
            losses = self._critic_losses(batch, target, _per_sample(batch, weights))
            losses = losses if weights is None else losses * weights
            context.require_finite(losses, group.name)
            return {
                "gradient": group.weights.gradient,
                "losses": losses,
                "value": context.partial(target.mean(1)),
            }

        return group.reduce(compute, "value", context)

    def actor(self, batch: TrainingBatch, context: UpdateContext) -> Sums:
        """Writes the actor's gradient into its group, after `critic` of the same batch; returns "losses" and
        "entropy" [K].
        """
        group, weights = self._groups["actor"], _weights(context)

        @torch.no_grad()
        def compute() -> Sums:
            noise = batch.noise(self._generator)
            losses, entropy = self._actor_losses(batch, noise, _per_sample(batch, weights))
            losses = losses if weights is None else losses * weights
            context.require_finite(losses, group.name)
            return {"gradient": group.weights.gradient, "losses": losses, "entropy": context.partial(entropy)}

        return group.reduce(compute, "entropy", context)

    def _critic_losses(self, batch: TrainingBatch, target: Tensor, scale: Tensor) -> Tensor:
        """Losses [K] against `target` [K, B]; `scale` [K] weighs a sample. Writes the critics' gradient."""
        batch_tasks, critic = batch.tasks, self._networks.critic
        self._write(self._critic, batch, batch.observation["state"].values, batch.continuous)
        raw = self._critic.forward()
        # the loss is the mean over the twins
        scale = scale / 2
        losses, gradients = {}, {}
        if batch_tasks.has_continuous:
            found = self._regression(raw["continuous"], target, scale, batch_tasks.continuous)
            losses["continuous"], gradients["continuous"] = found
        if batch_tasks.has_discrete:
            q_all = critic.by_action(raw["discrete"])
            index = batch.discrete[None, :, :, None, None].expand(2, -1, -1, 1, critic.head.outputs)
            q_index = q_all.gather(3, index).squeeze(3)
            losses["discrete"], gradient = self._regression(q_index, target, scale, batch_tasks.discrete)
            gradients["discrete"] = torch.zeros_like(q_all).scatter_(3, index, gradient.unsqueeze(3))
        self._critic.backward(gradients)
        self._networks.weights["critic"].copy_(self._gradients["critic"])
        return _merged(batch_tasks, losses)

    def _actor_losses(self, batch: TrainingBatch, noise: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Losses [K], and entropies [K] of -log pi of the drawn actions, or of the discrete policy. Reads the
        observations that `_critic_losses` wrote into the critics; writes the actor's gradient.
        """
        batch_tasks, critic = batch.tasks, self._networks.critic
        raw = self._act(batch.observation["state"].values)
        losses, entropies, gradients = {}, {}, {}
        if batch_tasks.has_discrete:
            # every action was valued already: the critics' inputs of these tasks hold no action
            values = critic.head.values(critic.by_action(self._critic.latest["discrete"])).amin(0)
            share = select_rows(scale, batch_tasks.discrete)
            found = self._discrete(raw["discrete"][0], values, batch, share)
            losses["discrete"], entropies["discrete"], gradients["discrete"] = found
        if batch_tasks.has_continuous:
            share = select_rows(scale, batch_tasks.continuous)
            found = self._continuous(raw["continuous"][0], noise, batch, share)
            losses["continuous"], entropies["continuous"], gradients["continuous"] = found
        self._actor.backward({name: value.to(raw[name].dtype) for name, value in gradients.items()})
        self._networks.weights["actor"].copy_(self._gradients["actor"])
        return _merged(batch_tasks, losses), _merged(batch_tasks, entropies)

    def _discrete(
        self, logits: Tensor, values: Tensor, batch: TrainingBatch, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses [K_d], entropies [K_d] and the gradient [K_d, B, actions] of `logits`, of the same shape as
        `values`; `scale` [K_d] weighs a sample.
        """
        batch_tasks = batch.tasks
        log_policy = self._networks.actor.log_policy(logits, batch_tasks)
        temperature = select_rows(batch.temperature, batch_tasks.discrete)
        policy = log_policy.exp()
        negative_log = log_policy.clamp_min(-1e8).neg_()
        # J_pi = -sum_a pi(a) q(a), q(a) = Q(s, a) - alpha log pi(a|s)  (Christodoulou 2019, eq. 12)
        soft_q = torch.addcmul(values, temperature[..., None], negative_log)
        soft_q.masked_fill_(log_policy == -torch.inf, 0.0)
        value = (policy * soft_q).sum(-1)
        # own derivation: d log pi(b) / d logit_a = 1[a = b] - pi(a), so d J_pi / d logit_a = pi(a) (V -
        # q(a)); the derivative of alpha log pi within q sums to zero
        gradient = (value[..., None] - soft_q).mul_(policy).mul_(scale[:, None, None])
        return value.mean(1).neg_(), (policy * negative_log).sum(-1).mean(1), gradient

    def _continuous(
        self, raw: Tensor, noise: Tensor, batch: TrainingBatch, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same for continuous tasks: losses and entropies [K_c], and the gradient of `raw`
        [K_c, B, 2 A].
        """
        networks, batch_tasks = self._networks, batch.tasks
        head, mask = networks.critic.head, batch_tasks.mask
        temperature = select_rows(batch.temperature, batch_tasks.continuous)
        gaussian, bounded = networks.actor.gaussian(raw, batch_tasks)
        scaled_noise = gaussian.log_std.exp().mul_(noise)
        drawn = gaussian.mean + scaled_noise
        action = drawn.tanh()
        log_p = gaussian.log_prob(drawn, noise)
        self._write(self._critic, batch, None, action * mask)
        q_taken = self._critic.forward()["continuous"]
        twins = head.values(q_taken)
        losses = soft_value(twins.amin(0), log_p, temperature).mean(1).neg_()
        # d (-min_i Q_i): the smaller twin has the gradient; equal ones share it
        second = torch.heaviside(twins[0] - twins[1], twins.new_tensor(0.5))
        to_value = torch.stack([second - 1.0, -second]).mul_(scale[:, None])
        to_raw_q = {"continuous": head.value_gradient(q_taken, twins, to_value).to(q_taken.dtype)}
        columns = slice(self._states, self._states + action.shape[-1])
        to_action = full_precision(self._critic.backward_inputs(to_raw_q, columns)).sum(0)
        to_action = to_action.view(batch_tasks.count, -1, action.shape[-1])
        to_action = select_rows(to_action, batch_tasks.continuous)
        # eq. 10 with a = tanh(u), u = mean + std noise: da/du = 1 - a^2, d log pi / du = 2 a, and
        # d log pi / d log std = 2 a std noise - 1
        weight = (temperature * scale[:, None])[..., None]
        to_mean = to_action.addcmul(action, 2.0 * weight - action * to_action) * mask
        to_log_std = (to_mean * scaled_noise - weight) * mask
        to_spread = to_log_std.mul_(1.0 - bounded.square()).mul_(networks.actor.reach)
        return losses, log_p.mean(1).neg_(), torch.cat([to_mean, to_spread], -1)

    def _regression(self, raw: Tensor, target: Tensor, scale: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Losses [K_o] of raw values [2, K_o, B, bins] of the tasks in `rows`, and their gradient; `scale`
        [K] is the weight of one value.
        """
        losses, gradient = self._networks.critic.head.losses_and_gradient(raw, select_rows(target, rows))
        return losses.mean((0, 2)), gradient.mul_(select_rows(scale, rows)[:, None, None]).to(raw.dtype)

    def _td_target(self, batch: TrainingBatch, noise: Tensor) -> Tensor:
        """[K, B]; see `losses.td_target`."""
        actor, critic, batch_tasks = self._networks.actor, self._networks.target, batch.tasks
        state = batch.next_observation["state"].values
        raw = self._act(state)
        continuous, discrete = (raw[name][0] if name in raw else None for name in ("continuous", "discrete"))
        policy = actor.policies((continuous, discrete), batch_tasks)

        def values(action: Tensor | None) -> ByKind:
            self._write(self._target, batch, state, action)
            outputs = self._target.forward()
            q_all = outputs.get("discrete")
            return outputs.get("continuous"), None if q_all is None else critic.by_action(q_all)

        return td_target(self._config, batch, noise, policy, values, critic.head)

    def _act(self, state: Tensor) -> Raw:
        """The actor's outputs for states [K, B, D]."""
        self._actor.inputs(state.shape[1])[..., : self._states] = state
        return self._actor.forward()

    def _write(
        self, network: ExplicitNetwork, batch: TrainingBatch, state: Tensor | None, action: Tensor | None
    ) -> None:
        """Writes states [K, B, D] and actions [K_c, B, A] into the inputs of critics, unless None."""
        inputs = network.inputs(batch.samples)
        if state is not None:
            inputs[..., : self._states] = state
        if action is not None:
            columns = slice(self._states, self._states + action.shape[-1])
            inputs[..., columns] = scatter_rows(action, batch.tasks.continuous, batch.tasks.count)


def _merged(batch_tasks: BatchTasks, parts: Mapping[str, Tensor]) -> Tensor:
    """[K, ...] of what was computed for the tasks of each output."""
    return batch_tasks.merged(parts.get("continuous"), parts.get("discrete"))


def _weights(context: UpdateContext) -> Tensor | None:
    """[K], what the losses of a batch of all tasks are multiplied by."""
    if context.portion is None or context.shares is None:
        return context.shares if context.portion is None else context.portion
    return context.shares * context.portion


def _per_sample(batch: TrainingBatch, weights: Tensor | None) -> Tensor:
    """[K], the weight of one sample of a task in the sum of losses."""
    even = batch.reward.new_full((batch.tasks.count,), 1.0 / batch.samples)
    return even if weights is None else weights * even
