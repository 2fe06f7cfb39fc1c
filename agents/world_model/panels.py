"""What the report shows of the inside of a world model."""

from __future__ import annotations

from mtrl.panels import Panel

PANELS = (
    Panel(
        "heat",
        "Use of the experts",
        "weight of each expert (column) in the model of a task, at the end",
        ("expert_{layer}_use/{task}",),
        unit_range=True,
    ),
    Panel(
        "profile",
        "Latent error by horizon",
        "mean squared error after so many steps of the model",
        ("latent_error_{layer}/{task}",),
    ),
    Panel(
        "lines",
        "Entropy of the gate",
        "0: certain; 1: all experts alike. The mean gate of all tasks should stay near 1",
        ("gate_entropy/{task}", "gate_entropy_marginal"),
        unit_range=True,
    ),
    Panel(
        "lines",
        "Gates exchanged",
        "latent error with another task's gate, times that with its own",
        ("exchanged_gate_error/{task}",),
        level=1.0,
    ),
    Panel(
        "lines",
        "Unused experts forced",
        "latent error with experts that the task does not use, times its own",
        ("unused_expert_error/{task}",),
        level=1.0,
    ),
    Panel(
        "lines",
        "Planner against policy",
        "the model's return of the plan minus the policy's, in units of the Q scale",
        ("planning_gain/{task}",),
        level=0.0,
    ),
    Panel("lines", "Q scale", "range of the values from 5% to 95%, scaled reward", ("q_scale/{task}",)),
    Panel("lines", "Dormant units", "share of the Q functions' units", ("dormant_units",), unit_range=True),
    Panel("lines", "Effective rank", "directions that the latents use", ("effective_rank",)),
)
"""In the order of the page."""
