"""Fragments and whole episodes, collected in this process or by a pool of workers."""
