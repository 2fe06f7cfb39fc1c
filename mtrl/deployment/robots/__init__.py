"""Robots: the contract, the loop that carries out commands, and the simulated robot."""
