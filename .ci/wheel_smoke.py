"""Uses the installed dualfast as a new user would: JPEGs, scores, a selection, the loader, a run with its page."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import torch
from PIL import Image

import dualfast
from dualfast import ops

home = pathlib.Path(dualfast.__file__).resolve()
assert home.is_relative_to(pathlib.Path(sys.prefix).resolve()), home
assert not [compiler for compiler in ("cc", "c++", "gcc", "g++") if shutil.which(compiler)]
assert ops.JPEG_LIBRARY.startswith("libjpeg-turbo"), ops.JPEG_LIBRARY

rng = np.random.default_rng(0)
for split, n in ("train", 120), ("val", 40):
    for label, name in enumerate(("dark", "light")):
        folder = pathlib.Path("photos", split, name)
        folder.mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 128, (48, 56, 3)) + 127 * label * (rng.random() < 0.9)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.jpg", quality=90)

dualfast.write("photos/train", "train.beton")
loader = dualfast.Loader("train.beton", batch_size=32, image_size=32, augment="crop+flip")
table = dualfast.ScoreTable(loader.n_samples, window=3)
criterion = dualfast.DualLoss(table)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(5):
    for images, labels, index in loader:
        loss = criterion(model(images), labels, index)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
kept = dualfast.select(table.scores(), prune_ratio=0.7, seed=0)
assert len(kept) == 72, kept
loader.set_indices(kept)
assert sum(len(labels) for _, labels, _ in loader) == 72
loader.close()

mapped = {line.split()[-1] for line in pathlib.Path("/proc/self/maps").read_text().splitlines() if ".so" in line}
openmp = [path for path in mapped if "libgomp" in path or "libiomp" in path or "libomp" in path]
assert openmp == [str(pathlib.Path(torch.__file__).parent / "lib" / "libgomp.so.1")], openmp
foreign = [path for path in mapped if "libjpeg" in path and not path.startswith(sys.prefix)]
assert not foreign, foreign

command = "run --data photos --score-epochs 3 --window 3 --epochs 3 --prune-ratio 0.5 --method dual+beta --seed 0"
subprocess.run([sys.executable, "-m", "dualfast", *command.split()], check=True, stdout=subprocess.DEVNULL)
assert pathlib.Path("runs/photos/report.html").stat().st_size > 100_000
print(f"tried: {ops.JPEG_LIBRARY}, torch {torch.__version__}, Python {sys.version.split()[0]}")
