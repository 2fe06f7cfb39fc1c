"""From any policy to a one-forward student, and from the student to ONNX."""

from typing import TYPE_CHECKING

from mtrl.lazy import lazy_names

if TYPE_CHECKING:
    from .chunk_learner import ChunkLearner
    from .config import DistillationConfig
    from .dagger import DAGGER, Dagger, DaggerFactory, imitation_loss
    from .export import ChunkModule, chunk_module_of, export_onnx, golden_cases, require_reference_parity
    from .factory import DistillerFactory, student_policy
    from .pixel_student import PixelStudent, PixelStudentPolicy
    from .same_noise import SAME_NOISE, SameNoiseDistiller, SameNoiseFactory
    from .student import Student, StudentForm, student_from
    from .teacher import (
        ActionSampler,
        FirstStep,
        WarmStart,
        inherit,
        require_same_sizes,
        spec_of,
        teacher_of,
    )

__all__ = [
    "DAGGER",
    "SAME_NOISE",
    "ActionSampler",
    "ChunkLearner",
    "ChunkModule",
    "Dagger",
    "DaggerFactory",
    "DistillationConfig",
    "DistillerFactory",
    "FirstStep",
    "PixelStudent",
    "PixelStudentPolicy",
    "SameNoiseDistiller",
    "SameNoiseFactory",
    "Student",
    "StudentForm",
    "WarmStart",
    "chunk_module_of",
    "export_onnx",
    "golden_cases",
    "imitation_loss",
    "inherit",
    "require_reference_parity",
    "require_same_sizes",
    "spec_of",
    "student_from",
    "student_policy",
    "teacher_of",
]

__getattr__, __dir__ = lazy_names(__name__)
