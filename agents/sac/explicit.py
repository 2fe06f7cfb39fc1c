"""An update of plain perceptrons with every derivative written out."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtrl.nn import ExplicitNetwork, TanhGaussian, full_precision, scatter_rows, select_rows

from .fast import Fast
from .learning import Learning, Sample
from .losses import bootstrapped, discrete_soft_value, soft_value
from .networks import Routing

Raw = Mapping[str, torch.Tensor]
"""Output -> [N, K of the output, B, size]"""


class ExplicitUpdate:
    """`GradientComputation` without autograd: the same losses and gradients up to rounding, for less
    time at the sizes of our experiments (docs/decisions/0013).

    It serves batches of all tasks, each of which sees a state, where actor and critics are what
    `ExplicitNetwork` serves, neither is under surgery, no weight is frozen, values are not clipped, and all
    of it is on the processor. Whatever else comes goes by autograd.
    """

    @staticmethod
    def of(learning: Learning, fast: Fast) -> ExplicitUpdate | None:
        """None where the networks or the settings are of another kind."""
        config, device = learning.config, learning.target_entropy.device
        if not config.explicit or config.value_clip or device.type != "cpu":
            return None
        learned = (fast.actor, fast.critic)
        if not all(value.requires_grad for network in learned for value in network.parameters()):
            return None
        fits = all(
            ExplicitNetwork.serves(network.network) and network.observer.pixels is None for network in learned
        )
        return ExplicitUpdate(learning, fast) if fits else None

    def __init__(self, learning: Learning, fast: Fast) -> None:
        """For networks that `of` has looked at."""
        self._learning, self._fast = learning, fast
        used, kept = fast.used, fast.weights
        # where the copies are in bf16, so are their gradients, and `take` brings them over
        self._gradients = {
            name: kept[name].gradient if used is kept else torch.zeros_like(used[name].whole.detach())
            for name in ("actor", "critic")
        }
        self._actor = ExplicitNetwork(fast.actor.network, used["actor"], self._gradients["actor"])
        self._critic = ExplicitNetwork(fast.critic.network, used["critic"], self._gradients["critic"])
        self._target = ExplicitNetwork(fast.target.network, used["target"])
        self._states = fast.actor.observer.size
        self._tasks = fast.actor.observer.mean.shape[0]

    def serves(self, sample: Sample) -> bool:
        """Whether the batch holds all tasks."""
        return sample.way.count == self._tasks

    @torch.no_grad()
    def critic(
        self, sample: Sample, noise: torch.Tensor, shares: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Leaves the critics' gradient in their weights' `gradient`; returns losses [K] and targets [K, B].
        `noise` [K_c, B, A] draws the following actions, `shares` [K] weigh the losses.
        """
        goal, way, critic = self._goal(sample, noise), sample.way, self._fast.critic
        self._show(self._critic, sample, sample.decided["state"].values, sample.continuous)
        raw = self._critic.forward()
        scale = _scale(sample, shares) / 2
        losses, slopes = {}, {}
        if way.acts_by_vector:
            wanted, share = select_rows(goal, way.continuous), select_rows(scale, way.continuous)
            losses["continuous"], slopes["continuous"] = self._regressed(raw["continuous"], wanted, share)
        if way.acts_by_index:
            every = self._every(raw)
            index = sample.discrete[None, :, :, None, None].expand(2, -1, -1, 1, critic.head.outputs)
            wanted, share = select_rows(goal, way.discrete), select_rows(scale, way.discrete)
            losses["discrete"], slope = self._regressed(every.gather(3, index).squeeze(3), wanted, share)
            slopes["discrete"] = torch.zeros_like(every).scatter_(3, index, slope.unsqueeze(3))
        self._critic.backward(slopes)
        self._fast.weights["critic"].copy_(self._gradients["critic"])
        made = _merged(way, losses)
        return made if shares is None else made * shares, goal

    @torch.no_grad()
    def actor(
        self, sample: Sample, noise: torch.Tensor, shares: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for the actor: losses [K], and entropies [K] of -log pi of the drawn actions, or of the
        discrete policy. The critics still hold what `critic` has shown them.
        """
        way, scale = sample.way, _scale(sample, shares)
        raw = self._act(sample.decided["state"].values)
        losses, entropies, slopes = {}, {}, {}
        if way.acts_by_index:
            # every action was valued already: what critics see of these tasks has no action in it
            values = self._fast.critic.head.values(self._every(self._critic.latest)).amin(0)
            found = self._of_policy(raw["discrete"][0], values, sample, select_rows(scale, way.discrete))
            losses["discrete"], entropies["discrete"], slopes["discrete"] = found
        if way.acts_by_vector:
            found = self._of_gaussian(raw["continuous"][0], noise, sample, select_rows(scale, way.continuous))
            losses["continuous"], entropies["continuous"], slopes["continuous"] = found
        self._actor.backward({name: slope.to(raw[name].dtype) for name, slope in slopes.items()})
        self._fast.weights["actor"].copy_(self._gradients["actor"])
        made = _merged(way, losses)
        return made if shares is None else made * shares, _merged(way, entropies)

    def _of_policy(
        self, logits: torch.Tensor, values: torch.Tensor, sample: Sample, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses [K_d], entropies [K_d] and the gradient [K_d, B, actions] of `logits`, of the same shape as
        `values`; `scale` [K_d] weighs a sample.
        """
        log_policy = self._fast.actor.log_policy(logits, sample.way)
        temperature = select_rows(sample.temperature, sample.way.discrete)
        policy = log_policy.exp()
        surprise = log_policy.clamp_min(-1e8).neg_()
        worth = torch.addcmul(values, temperature[..., None], surprise)
        worth.masked_fill_(log_policy == -torch.inf, 0.0)
        value = (policy * worth).sum(-1)
        # d log pi(b) / d logit a = 1 - pi(a) where a is b and -pi(a) elsewhere; the temperature's own share
        # of it sums to zero
        slope = (value[..., None] - worth).mul_(policy).mul_(scale[:, None, None])
        return value.mean(1).neg_(), (policy * surprise).sum(-1).mean(1), slope

    def _of_gaussian(
        self, raw: torch.Tensor, noise: torch.Tensor, sample: Sample, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same for tasks that act by vectors: losses and entropies [K_c], and the gradient of `raw`
        [K_c, B, 2 A].
        """
        actor, critic, way = self._fast.actor, self._fast.critic, sample.way
        mask, temperature = way.mask, select_rows(sample.temperature, way.continuous)
        gaussian, squeezed = self._gaussian(raw, way)
        jump = gaussian.log_std.exp().mul_(noise)
        drawn = gaussian.mean + jump
        action = drawn.tanh()
        log_p = gaussian.log_prob(drawn, noise)
        self._show(self._critic, sample, None, action * mask)
        chosen = self._critic.forward()["continuous"]
        each = critic.head.values(chosen)
        losses = soft_value(each.amin(0), log_p, temperature).mean(1).neg_()
        # the smaller twin has the gradient; equal ones share it
        second = torch.heaviside(each[0] - each[1], each.new_tensor(0.5))
        slope = torch.stack([second - 1.0, -second]).mul_(scale[:, None])
        slope = critic.head.value_gradient(chosen, each, slope)
        columns = slice(self._states, self._states + action.shape[-1])
        pulled = full_precision(
            self._critic.backward_inputs({"continuous": slope.to(chosen.dtype)}, columns)
        ).sum(0)
        along = select_rows(pulled.view(way.count, -1, action.shape[-1]), way.continuous)
        # d log pi / d drawn is 2 tanh(drawn), and d log pi / d log deviation another -1
        weight = (temperature * scale[:, None])[..., None]
        to_mean = along.addcmul(action, 2.0 * weight - action * along) * mask
        to_deviation = (to_mean * jump - weight) * mask
        to_raw = to_deviation.mul_(1.0 - squeezed.square()).mul_(actor.reach)
        return losses, log_p.mean(1).neg_(), torch.cat([to_mean, to_raw], -1)

    def _regressed(
        self, raw: torch.Tensor, goal: torch.Tensor, scale: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Losses [K_o] of raw values [2, K_o, B, bins] against `goal` [K_o, B], and their gradient, `scale`
        [K_o] being the weight of one value; see `learning.critic_losses`.
        """
        losses, slope = self._fast.critic.head.losses_and_gradient(raw, goal)
        return losses.mean((0, 2)), slope.mul_(scale[:, None, None]).to(raw.dtype)

    def _goal(self, sample: Sample, noise: torch.Tensor) -> torch.Tensor:
        """`learning.targets`."""
        config, way, target = self._learning.config, sample.way, self._fast.target
        state = sample.followed["state"].values
        raw = self._act(state)
        action, bonus, following = None, None, {}
        if way.acts_by_vector:
            gaussian, _ = self._gaussian(raw["continuous"][0], way)
            if config.entropy_in_target:
                action, bonus = gaussian.sample(noise)
            else:
                action = gaussian.action(noise)
        self._show(self._target, sample, state, action)
        valued = self._target.forward()
        if way.acts_by_vector:
            value = target.head.values(valued["continuous"]).amin(0)
            if bonus is not None:
                value = soft_value(value, bonus, select_rows(sample.temperature, way.continuous))
            following["continuous"] = value
        if way.acts_by_index:
            log_policy = self._fast.actor.log_policy(raw["discrete"][0], way)
            temperature = select_rows(sample.temperature, way.discrete)
            weight = temperature if config.entropy_in_target else torch.zeros_like(temperature)
            values = target.head.values(self._every(valued)).amin(0)
            following["discrete"] = discrete_soft_value(values, log_policy, weight)
        return bootstrapped(sample.reward, sample.final, _merged(way, following), config.discount)

    def _act(self, state: torch.Tensor) -> Raw:
        """What the actor gives for states [K, B, D]."""
        self._actor.inputs(state.shape[1])[..., : self._states] = state
        return self._actor.forward()

    def _gaussian(self, raw: torch.Tensor, way: Routing) -> tuple[TanhGaussian, torch.Tensor]:
        """The policy [K_c, B, A] of raw outputs, and tanh of their spread."""
        mean, spread = full_precision(raw).chunk(2, -1)
        squeezed = spread.tanh()
        return TanhGaussian(mean, self._fast.actor.log_std(squeezed), way.mask), squeezed

    def _every(self, raw: Raw) -> torch.Tensor:
        """[2, K_d, B, actions, bins]"""
        critic = self._fast.critic
        return raw["discrete"].unflatten(-1, (critic.actions, critic.head.outputs))

    def _show(
        self,
        network: ExplicitNetwork,
        sample: Sample,
        state: torch.Tensor | None,
        action: torch.Tensor | None,
    ) -> None:
        """Writes states [K, B, D] and actions [K_c, B, A] where critics read them, unless None."""
        inputs = network.inputs(sample.width)
        if state is not None:
            inputs[..., : self._states] = state
        if action is not None:
            columns = slice(self._states, self._states + action.shape[-1])
            inputs[..., columns] = scatter_rows(action, sample.way.continuous, sample.way.count)


def _merged(way: Routing, found: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """[K, ...] of what was found for the tasks of each output."""
    return way.merged(found.get("continuous"), found.get("discrete"))


def _scale(sample: Sample, shares: torch.Tensor | None) -> torch.Tensor:
    """[K], what one sample of a task weighs in the sum of losses."""
    even = sample.reward.new_full((sample.way.count,), 1.0 / sample.width)
    return even if shares is None else shares * even
