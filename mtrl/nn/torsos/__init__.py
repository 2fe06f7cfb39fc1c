"""Torsos that are chosen by configuration and share one contract."""
