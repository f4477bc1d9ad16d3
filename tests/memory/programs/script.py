"""A program that is known by its command line alone."""

import sys

import torch


def main(arguments):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch.nn.Linear(512, 512).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(int(arguments["--steps"])):
        loss = model(torch.randn(64, 512, device=device)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(loss.item())


if __name__ == "__main__":
    main(dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True)))
