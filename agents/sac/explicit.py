"""An update of plain perceptrons on continuous tasks with every derivative written out."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtrl.nn import ExplicitNetwork

from .fast import Fast
from .learning import Learning, Sample
from .losses import bootstrapped, soft_value, squashed, squashed_density, squashed_gaussian, two_hot


class ExplicitUpdate:
    """`Differentiation` without autograd: the same losses and gradients up to rounding, for less
    time at the sizes of our experiments (docs/decisions/0013).

    It serves batches of all tasks, each acting by vectors on a state, where actor and critics are what
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
            ExplicitNetwork.serves(network.network)
            and network.observer.pixels is None
            and "continuous" in network.network.outputs
            for network in learned
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
    ) -> tuple[Mapping[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """What `Part.differentiate` gives for the critics: sums by name and losses [K]; and the targets
        [K, B]. `noise` [K, B, A] draws the following actions, `shares` [K] weigh the losses.
        """
        critic = self._fast.critic
        goal = self._goal(sample, noise)
        self._show(self._critic, sample, sample.decided["state"][0], sample.continuous)
        raw = self._critic.forward()
        count = 2 * sample.width
        if critic.bins > 1:
            log_p = raw.float().log_softmax(-1)
            wanted = two_hot(goal, critic.support)
            losses = (wanted * log_p).sum(-1).mean((0, 2)).neg_()
            slope = log_p.exp_().sub_(wanted)
        else:
            error = raw[..., 0].float() - goal
            losses = error.square().mean((0, 2)).mul_(0.5)
            slope = error[..., None]
        slope = slope.mul_(1.0 / count if shares is None else (shares / count)[:, None, None])
        self._critic.backward(slope.to(raw.dtype))
        sums = self._fast.weights["critic"].take(self._gradients["critic"])
        return sums, losses if shares is None else losses * shares, goal

    @torch.no_grad()
    def actor(
        self, sample: Sample, noise: torch.Tensor, shares: torch.Tensor | None
    ) -> tuple[Mapping[str, torch.Tensor], torch.Tensor, torch.Tensor]:
        """The same for the actor: sums by name, losses [K], and entropies [K] of -log pi of the drawn
        actions. The critics still hold what `critic` has shown them.
        """
        actor, critic, dimensions = self._fast.actor, self._fast.critic, sample.way.dimensions
        mean, squeezed, log_deviation = self._act(sample.decided["state"][0])
        jump = log_deviation.exp().mul_(noise)
        drawn = mean + jump
        action = drawn.tanh()
        log_p = squashed_density(drawn, log_deviation, noise, dimensions)
        columns = slice(self._states, self._states + action.shape[-1])
        self._critic.inputs(sample.width)[..., columns] = dimensions.masked(action)
        raw = self._critic.forward()
        each = critic.values(raw)
        value = each.amin(0)
        losses = soft_value(value, log_p, sample.temperature).mean(1).neg_()
        entropies = log_p.mean(1).neg_()
        # the smaller twin has the gradient; equal ones share it
        second = torch.heaviside(each[0] - each[1], each.new_tensor(0.5))
        scale = torch.full_like(losses, 1.0 / sample.width) if shares is None else shares / sample.width
        slope = torch.stack([second - 1.0, -second]).mul_(scale[:, None])[..., None]
        if critic.bins > 1:
            slope = raw.float().softmax(-1).mul_(critic.support - each[..., None]).mul_(slope)
        along = self._critic.backward_inputs(slope.to(raw.dtype), columns).float().sum(0).view_as(action)
        # d log pi / d drawn is 2 tanh(drawn), and d log pi / d log deviation another -1
        weight = (sample.temperature * scale[:, None])[..., None]
        to_mean = dimensions.masked(along.addcmul(action, 2.0 * weight - action * along))
        to_deviation = dimensions.masked(to_mean * jump - weight)
        to_raw = to_deviation.mul_(1.0 - squeezed.square()).mul_(actor.reach)
        self._actor.backward(torch.cat([to_mean, to_raw], -1).to(raw.dtype))
        sums = self._fast.weights["actor"].take(self._gradients["actor"])
        return sums, losses if shares is None else losses * shares, entropies

    def _goal(self, sample: Sample, noise: torch.Tensor) -> torch.Tensor:
        """`learning.targets`."""
        config, dimensions = self._learning.config, sample.way.dimensions
        state = sample.followed["state"][0]
        mean, _, log_deviation = self._act(state)
        bonus = None
        if config.entropy_in_target:
            action, bonus = squashed_gaussian(mean, log_deviation, noise, dimensions)
        else:
            action = squashed(mean, log_deviation, noise, dimensions)
        self._show(self._target, sample, state, action)
        value = self._fast.target.values(self._target.forward()).amin(0)
        if bonus is not None:
            value = soft_value(value, bonus, sample.temperature)
        return bootstrapped(sample.reward, sample.final, value, config.discount)

    def _act(self, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Means, tanh of the raw spread, and the log deviations that it stands for: [K, B, A] in float32."""
        self._actor.inputs(state.shape[1])[..., : self._states] = state
        mean, spread = self._actor.forward()[0].float().chunk(2, -1)
        squeezed = spread.tanh()
        return mean, squeezed, self._fast.actor.log_deviation(squeezed)

    def _show(
        self, network: ExplicitNetwork, sample: Sample, state: torch.Tensor, action: torch.Tensor
    ) -> None:
        inputs = network.inputs(sample.width)
        inputs[..., : self._states] = state
        inputs[..., self._states : self._states + action.shape[-1]] = action
