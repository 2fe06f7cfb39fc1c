"""From any chunk teacher to a one-forward student, and from the student to ONNX."""

from .config import DistillationConfig
from .export import export_onnx, golden_cases, require_reference_parity
from .factory import STUDENT, StudentFactory, teacher_of
from .reference import reference_chunk
from .same_noise import DISTILLATION_METRICS, SameNoiseDistiller, require_same_chunks
from .student import Student, StudentForm, student_from, student_policy
from .teacher import ChunkTeacher, FirstStep

__all__ = [
    "DISTILLATION_METRICS",
    "STUDENT",
    "ChunkTeacher",
    "DistillationConfig",
    "FirstStep",
    "SameNoiseDistiller",
    "Student",
    "StudentFactory",
    "StudentForm",
    "export_onnx",
    "golden_cases",
    "reference_chunk",
    "require_reference_parity",
    "require_same_chunks",
    "student_from",
    "student_policy",
    "teacher_of",
]
