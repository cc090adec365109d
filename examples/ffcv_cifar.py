"""A training written for FFCV, modelled on its CIFAR example: only the import of Loader has changed.

python examples/ffcv_cifar.py --train train.beton --test test.beton [--epochs 24]

The files are written by dualfast.write, or FFCV's DatasetWriter, from 32 px images. FFCV's own operations do the
augmentation; they are compiled when the first batch is made."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import OrderOption
from ffcv.transforms import (
    Cutout,
    NormalizeImage,
    RandomHorizontalFlip,
    RandomTranslate,
    Squeeze,
    ToDevice,
    ToTensor,
    ToTorchImage,
)
from torch import nn

from dualfast import Loader  # was: from ffcv.loader import Loader

MEAN, STD = np.array([125.3, 123.0, 113.9]), np.array([63.0, 62.1, 66.7])


def open_loader(path: str, asked: argparse.Namespace, *, train: bool) -> Any:
    device = torch.device(asked.device)
    augment = [RandomHorizontalFlip(), RandomTranslate(padding=2), Cutout(4, tuple(map(int, MEAN)))] if train else []
    normalise = NormalizeImage(MEAN, STD, np.float32)
    pipelines = {
        "image": [SimpleRGBImageDecoder(), *augment, normalise, ToTensor(), ToDevice(device), ToTorchImage()],
        "label": [IntDecoder(), ToTensor(), ToDevice(device), Squeeze()],
    }
    return Loader(
        path,
        batch_size=asked.batch_size,
        num_workers=asked.workers,
        order=OrderOption.RANDOM if train else OrderOption.SEQUENTIAL,
        drop_last=train,
        pipelines=pipelines,
    )


def convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def network(classes: int, width: int) -> nn.Module:
    return nn.Sequential(
        *convolution(3, width),
        *convolution(width, 2 * width),
        nn.MaxPool2d(2),
        *convolution(2 * width, 4 * width),
        nn.MaxPool2d(2),
        *convolution(4 * width, 4 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    torch.manual_seed(0)

    loader, test = open_loader(asked.train, asked, train=True), open_loader(asked.test, asked, train=False)
    model = network(asked.classes, asked.width).to(asked.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=asked.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = asked.epochs * len(loader)
    triangle = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: float(np.interp(s, [0, steps / 5, steps], [0, 1, 0]))
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    for _ in range(asked.epochs):
        for images, labels, *_ in loader:  # dualfast's third value: the samples' indices
            optimizer.zero_grad(set_to_none=True)
            criterion(model(images), labels).backward()
            optimizer.step()
            triangle.step()

    model.eval()
    right = seen = 0
    with torch.no_grad():
        for images, labels, *_ in test:
            outputs = model(images) + model(images.flip(-1))
            right += int((outputs.argmax(1) == labels).sum())
            seen += len(labels)
    print(f"{right} of {seen} test images are right")


if __name__ == "__main__":
    main()
