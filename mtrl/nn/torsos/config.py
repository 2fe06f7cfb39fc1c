"""Kind and sizes of a torso."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from mtrl import registry
from mtrl.errors import ConfigError, UnknownNameError, UnsupportedError
from mtrl.structured import BELOW_ONE, POSITIVE, Checked, at_least, between, build, check

from ..config import ACTIVATIONS, TaskEmbeddingConfig

OUTPUTS = ("auto", "shared", "task", "composed")
GATES = ("task", "state", "both")
DISPATCHES = ("dense", "packed")


@dataclass(frozen=True)
class SoftModulesConfig(Checked, place="soft_modules"):
    """Soft Modularization (Yang et al. 2020, arXiv 2003.13661); the torso's `width` is the routing width."""

    modules: Annotated[int, between(2, 16)] = 2
    """Modules per layer, n, 2 to 16 (paper: 2 for MT10, 4 for MT50)."""
    layers: Annotated[int, between(1, 16)] = 2
    """Layers of modules, L, 1 to 16 (paper: 2 for MT10, 4 for MT50)."""
    module_width: Annotated[int, between(1, 4096)] = 256
    """Outputs of a module, d, 1 to 4096 (paper: 256 for MT10, 128 for MT50)."""
    embedding: Annotated[int, between(1, 4096)] = 400
    """Length of the state and task embeddings, D, 1 to 4096 (paper: 400)."""


@dataclass(frozen=True)
class PaCoConfig(Checked, place="paco"):
    """Parameter-compositional learning (Sun et al. 2022, arXiv 2210.11653)."""

    sets: Annotated[int, between(1, 64)] = 5
    """Parameter sets that tasks mix, 1 to 64 (paper: 5 for MT10, 20 for MT50)."""
    extreme_loss: Annotated[float, POSITIVE] = 3000.0
    """A task whose loss is above this is left out of the update and gets a new mixture, above 0; infinity for
    never. In units of the loss, so it has to fit the size of the rewards (the authors' program:
    3000)."""


@dataclass(frozen=True)
class MooreConfig(Checked, place="moore"):
    """Mixture of orthogonal experts (Hendawy et al. 2024, arXiv 2311.11385)."""

    experts: Annotated[int, between(1, 32)] = 4
    """Experts, 1 to 32 and at most the width (paper: 4 for MT10, 6 for MT50)."""
    tanh: bool = True
    """Whether the mixture passes through tanh (paper: true)."""


@dataclass(frozen=True)
class CareConfig(Checked, place="care"):
    """Contextual attention over a mixture of encoders (Sodhani et al. 2021, arXiv 2102.06177)."""

    encoders: Annotated[int, between(1, 64)] = 6
    """State encoders, 1 to 64 (paper: 6 for MT10, 10 for MT50)."""
    width: Annotated[int, between(1, 4096)] = 50
    """Width of the encoders, of the context network and of the context, 1 to 4096 (paper: 50)."""
    depth: Annotated[int, between(1, 16)] = 2
    """Hidden layers of the encoders and of the context networks, 1 to 16 (paper: 2)."""
    temperature: Annotated[float, POSITIVE] = 1.0
    """Divides the attention's logits, above 0 (paper: 1)."""


@dataclass(frozen=True)
class FilmConfig:
    """Feature-wise linear modulation (Perez et al. 2018, arXiv 1709.07871)."""

    scalar: bool = True
    """One scale and shift per layer (Meta-World+) rather than one per feature (paper)."""


@dataclass(frozen=True)
class ExpertsConfig(Checked, place="experts"):
    """Mixture of experts inside residual blocks of the torso's `width`; `depth` is the number of blocks."""

    routed: Annotated[int, between(2, 256)] = 8
    """Experts that tasks or samples choose from, E, 2 to 256."""
    shared: Annotated[int, between(0, 16)] = 1
    """Experts that every sample passes, 0 to 16 (DeepSeekMoE, arXiv 2401.06066: 1 to 2)."""
    chosen: int = 2
    """Experts per sample, 1 to `routed`; equal to `routed` is a dense mixture."""
    gate: str = "both"
    """What the router reads: "task" (its embedding), "state" (the sample), or "both", whose logits add."""
    renormalise: bool = True
    """Whether the chosen weights sum to 1. Must be false with chosen=1: the weight would be the
    constant 1, and the router would never learn."""
    hidden: Annotated[int, between(1, 8192)] = 256
    """Width inside an expert, 1 to 8192."""
    normalised: bool = True
    """HoME (arXiv 2408.05430): an expert ends in Swish(LayerNorm(.)), against experts that fall silent."""
    feature_gate: Annotated[int, between(0, 256)] = 0
    """HoME: rank of each expert's input gate 2 sigmoid(x A B), 0 to 256; 0 is off. Starts open (B = 0)."""
    self_gate: bool = False
    """HoME: a sigmoid gate on each shared expert, so that neither they nor the routed ones outweigh the
    others."""
    dispatch: str = "dense"
    """"dense": every expert computes every sample. "packed": only its own, padded per task; the same
    numbers, less work when E is well above `chosen` and the gate reads the state."""
    balance: Annotated[float, at_least(0)] = 1e-3
    """Step u of the selection bias that evens out loads without a loss, at least 0; 0 is off
    (arXiv 2408.15664: 1e-3). A gate that reads only the task needs none: its load is the task sampler's."""
    load_decay: Annotated[float, BELOW_ONE] = 0.9
    """Decay of the averaged load behind that bias, 0 up to but not 1; 0 is the paper's, whose batches
    are larger."""
    switch: Annotated[float, at_least(0)] = 0.0
    """Factor a of Switch's auxiliary loss a E sum_i f_i p_i (arXiv 2101.03961), at least 0; 0 is off (paper:
    0.01). The learner adds it: `Torso.balance_loss`."""
    groups: Annotated[tuple[int, ...], at_least(0)] = ()
    """HoME's hierarchy mask: the group of each task in task order, numbered from 0; empty is off. Routed
    experts beyond `common` are divided evenly, and a task chooses among those of its group and the common."""
    common: int = 0
    """Routed experts open to every group, 0 to `routed`; read with `groups`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, "experts", chosen=between(1, self.routed))
        if self.gate not in GATES:
            raise UnknownNameError("gate", self.gate, GATES)
        if self.dispatch not in DISPATCHES:
            raise UnknownNameError("dispatch", self.dispatch, DISPATCHES)
        if self.chosen == 1 and self.renormalise:
            raise UnsupportedError(
                "experts.chosen=1 with experts.renormalise=true gives every choice the weight 1, so the "
                "router would not learn; set experts.renormalise=false"
            )
        check(self, "experts", common=between(0, self.routed))
        if self.groups:
            self._check_groups()

    def _check_groups(self) -> None:
        count = max(self.groups) + 1
        if set(self.groups) != set(range(count)):
            raise ConfigError(
                f"experts.groups numbers the groups from 0 without gaps; got {sorted(set(self.groups))}"
            )
        own, rest = divmod(self.routed - self.common, count)
        if rest or self.chosen > self.common + own:
            raise ConfigError(
                f"experts.routed={self.routed} less common={self.common} is divided among {count} groups, "
                f"each with at least chosen={self.chosen} experts to choose from; got {own}, {rest} left over"
            )


@dataclass(frozen=True)
class TorsoConfig(Checked):
    """One torso; only the section named by `kind` is read besides the common fields."""

    kind: str = "multi_head"
    """"mlp", "multi_head", "residual", "soft_modules", "paco", "moore", "care", "film" or "experts".
    "multi_head" is an MLP whose output layer is one per task (MTMHSAC). Or a torso of another package, by
    the name of its entry point in the group mtrl.torsos."""
    width: Annotated[int, between(1, 8192)] = 400
    """Hidden width, 1 to 8192 (Meta-World+: 400; BRC's residual critic: 4096)."""
    depth: Annotated[int, between(1, 32)] = 3
    """Hidden layers, or blocks of "residual" and "experts", 1 to 32 (Meta-World+: 3; BRC: 2)."""
    activation: str = "relu"
    """"relu" (Meta-World+, BRC), "silu", "gelu", "elu" or "tanh"."""
    layer_norm: bool = False
    """Whether LayerNorm precedes every activation (Meta-World+: false)."""
    norm_affine: bool = True
    """Whether LayerNorm has a learned scale and shift."""
    task_input: bool = True
    """Whether mlp, multi_head, residual and experts read the task embedding with the features
    (MTMHSAC: true). The other kinds use it otherwise."""
    embedding: TaskEmbeddingConfig = field(default_factory=TaskEmbeddingConfig)
    """How the task index becomes features."""
    output: str = "auto"
    """Output layer: "shared", "task" (one per task), "composed" (paco only), or "auto": the paper's."""
    output_bound: Annotated[float, POSITIVE] = 1e-3
    """Output weights start as U(+-this), above 0 (Meta-World+ actor: 1e-3)."""
    soft_modules: SoftModulesConfig = field(default_factory=SoftModulesConfig)
    """Read by soft_modules."""
    paco: PaCoConfig = field(default_factory=PaCoConfig)
    """Read by paco."""
    moore: MooreConfig = field(default_factory=MooreConfig)
    """Read by moore."""
    care: CareConfig = field(default_factory=CareConfig)
    """Read by care."""
    film: FilmConfig = field(default_factory=FilmConfig)
    """Read by film."""
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    """Read by experts."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a torso of another package, by the names of its `config_class`."""

    ADDED: ClassVar[tuple[str, ...]] = ("options",)
    """Fields that older files lack."""

    def __post_init__(self) -> None:
        if self.kind not in registry.names("torso"):
            raise UnknownNameError("torso", self.kind, registry.names("torso"))
        if self.output not in OUTPUTS:
            raise UnknownNameError("output layer", self.output, OUTPUTS)
        if self.activation not in ACTIVATIONS:
            raise UnknownNameError("activation", self.activation, ACTIVATIONS)
        super().__post_init__()
        if self.output == "composed" and self.kind != "paco":
            raise ConfigError(f"output=composed mixes the parameter sets of kind=paco; got kind={self.kind}")
        if self.kind == "moore" and self.moore.experts > self.width:
            raise ConfigError(
                f"moore.experts={self.moore.experts} orthogonal experts do not fit into width={self.width}"
            )
        if self.options:
            self.own_settings()

    def own_settings(self) -> object:
        """`options` as the torso's own dataclass, None where it has none; imports the torso. Raises
        UnsupportedError for options of a torso that takes none.
        """
        kind = registry.load("torso", self.kind).config_class
        if kind is None and self.options:
            raise UnsupportedError(
                f"torso {self.kind!r} has no settings of its own, so it takes no options; got "
                f"{', '.join(self.options)}"
            )
        return None if kind is None else build(kind, self.options, "options")

    @property
    def output_kind(self) -> str:
        """`output`, with "auto" resolved; imports the torso."""
        natural: str = registry.load("torso", self.kind).natural_output
        return natural if self.output == "auto" else self.output
