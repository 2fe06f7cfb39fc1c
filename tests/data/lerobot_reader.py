"""What LeRobot's own reader finds in a dataset, as JSON: `python lerobot_reader.py SITE DATASET`."""

import json
import sys
import types

site, place = sys.argv[1:]
sys.path.insert(0, site)
# torchvision only transforms images, of which there are none
names = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2")
vision, transforms, second = (types.ModuleType(name) for name in names)
for name, module in zip(names, (vision, transforms, second), strict=True):
    module.__spec__ = types.SimpleNamespace(name=name)  # type: ignore[assignment]
    sys.modules[name] = module
vision.transforms, vision.__version__ = transforms, "0"  # type: ignore[attr-defined]
transforms.v2, transforms.ToTensor = second, lambda: None  # type: ignore[attr-defined]
second.Transform, second.Compose = type("Transform", (), {}), type("Compose", (), {})  # type: ignore[attr-defined]

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

whole = LeRobotDataset("made/there", root=place)
frames = [whole[k] for k in range(len(whole))]
ahead = {"action": [step / whole.fps for step in range(4)]}
chunked = LeRobotDataset("made/there", root=place, episodes=[1], delta_timestamps=ahead)
print(
    json.dumps(
        {
            "episodes": whole.num_episodes,
            "fps": whole.fps,
            "states": [frame["observation.state"].tolist() for frame in frames],
            "actions": [frame["action"].tolist() for frame in frames],
            "success": [bool(frame["next.success"]) for frame in frames],
            "tasks": [frame["task"] for frame in frames],
            "chunks": [chunked[k]["action"].tolist() for k in range(len(chunked))],
            "mean": list(map(float, whole.meta.stats["action"]["mean"])),
        }
    )
)
