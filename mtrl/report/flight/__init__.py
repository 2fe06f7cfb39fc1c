"""The page of one flight log: commands and joints against their limits, states, times, the guard's events."""

from .page import write_flight_report

__all__ = ["write_flight_report"]
