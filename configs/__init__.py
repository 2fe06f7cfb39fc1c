"""Hydra groups in YAML that mirror the folders; this package holds no code."""

if __name__ == "configs":
    raise ImportError("this folder is a part of mtrl: write `import mtrl.configs`, not `import configs`")
