"""EnvPool (Weng et al. 2022): compiled simulators as a backend for training, one module a suite.

EnvPool draws its own initial states, and its simulators are compiled against other releases of MuJoCo, ALE
and Meta-World than the official environments here. So it serves the collection of experience; evaluation
and everything that names a start runs on the official environments.

The suites import `metaworld`, `control` and `atari` when a pool is asked for, and nothing is imported here:
listing tasks must not load a simulator.
"""
