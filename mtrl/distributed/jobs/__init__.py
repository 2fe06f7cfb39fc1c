"""Commands of mtrl as Ray Jobs: what travels, and the server that runs them. Importing this imports Ray."""

from __future__ import annotations

from .server import Job, JobServer
from .upload import EXCLUDED, LIMIT_BYTES, Upload, upload_of

__all__ = ["EXCLUDED", "LIMIT_BYTES", "Job", "JobServer", "Upload", "upload_of"]
