"""The peer: the paper's loop as a tutorial writes it, and nothing else.

ImageFolder, transforms on PIL images, DataLoader workers, batches of 4, fp32, the whole network in
every step. `python benchmarks/tutorial.py SPLIT resnet18 0.001 frozen CHECKPOINT --epochs 1`.
"""

import argparse
import time

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import models, transforms
from torchvision.datasets import ImageFolder

NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def loaders(split: str, resize: int, size: int, workers: int) -> dict[str, DataLoader]:
    """Batches of 4 from SPLIT/{train,test}/<class>, shuffled both, as the tutorial has it."""
    steps = {
        "train": [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()],
        "test": [transforms.Resize(resize), transforms.CenterCrop(size)],
    }
    return {
        part: DataLoader(
            ImageFolder(
                f"{split}/{part}",
                transforms.Compose([*steps[part], transforms.ToTensor(), NORMALIZE]),
            ),
            batch_size=4,
            shuffle=True,
            num_workers=workers,
        )
        for part in ("train", "test")
    }


def network(backbone: str, checkpoint: str | None, classes: int, frozen: bool) -> nn.Module:
    model = getattr(models, backbone)(weights=None)
    if checkpoint:
        model.load_state_dict(torch.load(checkpoint, weights_only=True), strict=False)
    if frozen:
        for parameter in model.parameters():
            parameter.requires_grad = False
    model.fc = nn.Linear(model.fc.in_features, classes)
    return model


def train(model, batches, lr: float, frozen: bool, epochs: int, device: str) -> float:
    """Train, test after every epoch, and return the best test accuracy."""
    model = model.to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.fc.parameters() if frozen else model.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best = 0.0
    for _ in range(epochs):
        for phase in ("train", "test"):
            model.train(phase == "train")
            loss_sum, correct = 0.0, 0
            for inputs, labels in batches[phase]:
                inputs, labels = inputs.to(device), labels.to(device)
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                loss_sum += loss.item() * len(labels)
                correct += torch.sum(outputs.argmax(1) == labels).item()
            if phase == "train":
                scheduler.step()
        best = max(best, correct / len(batches["test"].dataset))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split")
    parser.add_argument("backbone")
    parser.add_argument("lr", type=float)
    parser.add_argument("freezing", choices=["frozen", "finetuned"])
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--resize", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    started = time.perf_counter()
    batches = loaders(args.split, args.resize, args.size, args.workers)
    classes = len(batches["train"].dataset.classes)
    frozen = args.freezing == "frozen"
    model = network(args.backbone, args.checkpoint, classes, frozen)
    best = train(model, batches, args.lr, frozen, args.epochs, args.device)
    print(f"tutorial: best {best:.4f}, {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
