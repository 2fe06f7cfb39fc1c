"""Thin commands: parse, compose, call."""
