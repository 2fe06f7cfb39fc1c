"""Flights against lost processes, hostile policies and tampered files, and a robot that stands still."""
