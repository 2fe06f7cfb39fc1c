"""Suites of tasks, one module or folder a suite; listing them imports no simulator."""

if __name__ == "envs":
    raise ImportError("this folder is a part of mtrl: write `import mtrl.envs`, not `import envs`")
