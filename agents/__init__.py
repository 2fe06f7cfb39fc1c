"""Agents, one folder each, all alike: README, config, networks, losses, agent."""

if __name__ == "agents":
    raise ImportError("this folder is a part of mtrl: write `import mtrl.agents`, not `import agents`")
