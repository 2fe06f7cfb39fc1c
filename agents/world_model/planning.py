"""Planning in the latent space: MPPI for continuous tasks, the cross-entropy method for discrete ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mtrl.nn import TanhGaussian, TaskGates

from .networks import WorldModel


@dataclass(frozen=True)
class Search:
    """What all copies of a call share: task rows, their embedding, the gates' choice, discounts, Q scales."""

    task_index: torch.Tensor
    """[K]"""
    embedded: torch.Tensor
    """[K, 1, e]"""
    gates: TaskGates
    """Chosen once for the whole plan: the task does not change within it."""
    discount: torch.Tensor
    """[K, 1]"""
    scale: torch.Tensor
    """[K, 1], the tasks' Q scales."""


class Planner:
    """Finds the actions of N copies, K rows of B copies each, by simulating S sequences of H steps.

    Returns of sequences are sum_t g^t c_t r_t + g^H c_H Q(z_H, pi(z_H)), c_t the probability that no step
    before t was terminal; Q is the mean over the ensemble (TD-MPC2, equation 6).
    """

    def __init__(self, model: WorldModel) -> None:
        self.model = model
        self.settings = model.config.planning

    def continuous(
        self, latent: torch.Tensor, search: Search, warm: torch.Tensor, noise: npt.NDArray[np.float32]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """MPPI (Williams et al. 2015) around the prior's plan: mean [K, B, H, A] and deviation.

        latent [K, B, d]; warm [K, B, H, A], the plan before, shifted, 0 at the start of an episode: one of
        the sequences; noise [K, B, iterations + 1, S, H, A] standard normal, of which the last slice drives
        the policy's samples.
        """
        settings = self.settings
        drawn = torch.from_numpy(noise).to(latent.device)
        mask = self.model.continuous[search.task_index][:, None, None, None]
        priors = self._policy_sequences(latent, search, drawn[:, :, -1, : settings.policy_samples])
        known = torch.cat([warm[:, :, None], priors], dim=2)[:, :, : settings.samples]
        mean, std = self.prior_plan(latent, search), torch.full_like(warm, settings.spread)
        fresh = settings.samples - known.shape[2]
        for iteration in range(settings.iterations):
            sampled = mean[:, :, None] + std[:, :, None] * drawn[:, :, iteration, :fresh]
            plans = torch.cat([known, sampled.clamp(-1.0, 1.0)], dim=2) * mask
            value = self.returns(latent, search, self.coded(plans, discrete=False))
            score, index = self._elites(value, search)
            elites = plans.gather(2, index[..., None, None].expand(-1, -1, -1, *plans.shape[-2:]))
            weight = score[..., None, None]
            mean = (weight * elites).sum(2)
            std = (weight * (elites - mean[:, :, None]).square()).sum(2).sqrt()
            std = std.clamp(settings.std_low, settings.spread)
        return mean, std * mask[:, :, 0]

    def discrete(
        self, latent: torch.Tensor, search: Search, uniform: npt.NDArray[np.float32]
    ) -> torch.Tensor:
        """The cross-entropy method on one categorical a step: probabilities of the elites [K, B, H, n].

        The search begins with the policy's probabilities, mixed with even ones; `uniform`
        [K, B, iterations, S, H] in [0, 1) draws by the inverse of the cumulative distribution.
        """
        settings, layout = self.settings, self.model.layout
        draws = torch.from_numpy(uniform).to(latent.device)
        legal = self.model.legal[search.task_index][:, None, None].float()
        even = legal / legal.sum(-1, keepdim=True)
        _, logits = self.model.prior(latent, search.task_index, search.embedded)
        prior = (
            self.model.log_policy(logits, search.task_index)
            .exp()[:, :, None]
            .expand(-1, -1, settings.horizon, -1)
        )
        fitted = best = 0.5 * prior + 0.5 * even
        for iteration in range(settings.iterations):
            edges = fitted.cumsum(-1)
            places = torch.searchsorted(
                edges[:, :, None].expand(-1, -1, settings.samples, -1, -1).contiguous(),
                (draws[:, :, iteration] * edges[:, :, None, :, -1])[..., None],
                right=True,
            ).squeeze(-1)
            places = places.clamp_max(layout.discrete_size - 1)
            plans = torch.nn.functional.one_hot(places, layout.discrete_size).to(latent.dtype)
            value = self.returns(latent, search, self.coded(plans, discrete=True))
            score, index = self._elites(value, search)
            elites = plans.gather(2, index[..., None, None].expand(-1, -1, -1, *plans.shape[-2:]))
            best = (score[..., None, None] * elites).sum(2)
            # a tenth of even probability keeps every action possible during the search
            fitted = 0.9 * best + 0.1 * even
        return best

    def _elites(self, value: torch.Tensor, search: Search) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights [K, B, E] of the best sequences, softmax of returns in units of the task's Q scale."""
        best, index = value.topk(self.settings.elites, dim=-1)
        spread = self.settings.temperature * search.scale[..., None]
        return torch.softmax((best - best[..., :1]) / spread, dim=-1), index

    def coded(self, plans: torch.Tensor, *, discrete: bool) -> torch.Tensor:
        """Continuous actions [..., A], or one-hot discrete ones [..., n], as coded actions [..., A + n]."""
        layout = self.model.layout
        if not (layout.continuous_size and layout.discrete_size):
            return plans
        before = layout.continuous_size if discrete else 0
        after = 0 if discrete else layout.discrete_size
        return torch.nn.functional.pad(plans, (before, after))

    def prior_plan(self, latent: torch.Tensor, search: Search) -> torch.Tensor:
        """The prior's most likely actions along the model, [K, B, H, A or n]; all tasks of one kind."""
        model, state, found = self.model, latent, []
        for _ in range(self.settings.horizon):
            gaussian, logits = model.prior(state, search.task_index, search.embedded)
            action = prior_action(model, gaussian, logits, search.task_index)
            found.append(action)
            state = model.step(state, action, search.embedded, search.gates).latent
        width = model.layout.continuous_size
        discrete = bool(model.layout.discrete_tasks[int(search.task_index[0])])
        plans = torch.stack(found, dim=2)
        return plans[..., width:] if discrete else plans[..., :width]

    def _policy_sequences(self, latent: torch.Tensor, search: Search, noise: torch.Tensor) -> torch.Tensor:
        """[K, B, P, H, A], the policy's own actions along the model, with its noise."""
        tasks, copies, count = noise.shape[:3]
        if count == 0:
            return noise
        state = latent[:, :, None].expand(-1, -1, count, -1).reshape(tasks, copies * count, -1)
        found = []
        for t in range(self.settings.horizon):
            gaussian, _ = self.model.prior(state, search.task_index, search.embedded)
            drawn = noise[:, :, :, t].reshape(tasks, copies * count, -1)
            action = gaussian.action(drawn)
            found.append(action.view(tasks, copies, count, -1))
            if t < self.settings.horizon - 1:
                coded = self.coded(action, discrete=False)
                state = self.model.step(state, coded, search.embedded, search.gates).latent
        return torch.stack(found, dim=3)

    def returns(self, latent: torch.Tensor, search: Search, plans: torch.Tensor) -> torch.Tensor:
        """[K, B, S] returns of plans [K, B, S, H, A + n]."""
        model = self.model
        tasks, copies, count, horizon = plans.shape[:4]
        state = latent[:, :, None].expand(-1, -1, count, -1).reshape(tasks, copies * count, -1)
        flat = plans.reshape(tasks, copies * count, horizon, -1)
        total = latent.new_zeros(tasks, copies * count)
        factor = torch.ones_like(total)
        for t in range(horizon):
            step = model.step(state, flat[:, :, t], search.embedded, search.gates)
            total = total + factor * model.values(step.reward)
            factor = factor * search.discount * (1.0 - torch.sigmoid(step.termination))
            state = step.latent
        gaussian, logits = model.prior(state, search.task_index, search.embedded)
        last = prior_action(model, gaussian, logits, search.task_index)
        value = model.values(model.q_logits(state, last, search.embedded)).mean(0)
        return (total + factor * value).view(tasks, copies, count)


def prior_action(
    model: WorldModel, gaussian: TanhGaussian, logits: torch.Tensor, task_index: torch.Tensor
) -> torch.Tensor:
    """The policy's most likely action, coded [K, B, A + n]."""
    mode = gaussian.mode()
    if not model.layout.discrete_size:
        return mode
    discrete = model.discrete[task_index]
    legal = model.legal[task_index][:, None]
    return model.coded(mode, logits.masked_fill(~legal, -torch.inf).argmax(-1), discrete)
