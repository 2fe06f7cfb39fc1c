"""The artefact, a directory that holds a deployable policy, hashed, without a single pickle.

`policy.onnx` (normalisation, conditioning and squashing inside the graph), `manifest.json`,
`golden.npz` (inputs and the outputs that the exporting framework gave) and `manifest.sha256`, whose
own hash is the artefact's id.

Graph: `state` float32 [N, h, D_max] (absent when D_max = 0), `pixels` uint8 [N, C, H, W] (absent where no
task shows images), `task` int64 [N], `z` float32 [N, Z] (absent when Z = 0) to
`chunk` float32 [N, H, A_max] in [-1, 1]: the dimensions of continuous actions, then one column for every
choice of discrete tasks, which holds its probability. What is of other tasks is 0.
"""
