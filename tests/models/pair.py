"""Two processes that share a batch: run as a script, it writes what each of them found into a folder."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tocsin.models.batch_share import BatchShare, CommonNumbers
from tocsin.models.whole_batch import WholeBatch

SEED = 5
N_ITEMS = 7
SIZES = (4, 3)


class Network(nn.Module):
    """What depends on a whole batch: dropout and both kinds of batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3)
        self.norm = nn.BatchNorm1d(3, momentum=0.3)
        self.dropout = nn.Dropout(0.4)
        self.linear = nn.Linear(18, 4)
        self.flat_norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.norm(self.conv(x)).relu())  # (B, 3, 6)
        found: Tensor = self.flat_norm(self.linear(hidden.flatten(1)))
        return found


def network() -> Network:
    torch.manual_seed(1)
    return Network()


def items() -> tuple[Tensor, Tensor, Tensor]:
    """(N, 2, 8) inputs far from 0, (N, 4) targets and (N,) counts."""
    torch.manual_seed(2)
    return 3 + torch.randn(N_ITEMS, 2, 8), torch.randn(N_ITEMS, 4), torch.arange(1.0, N_ITEMS + 1)


def step(share: BatchShare, rows: slice) -> dict[str, Tensor]:
    """One step on some of the items: loss, gradients, statistics of the norm."""
    x, targets, counts = (part[rows] for part in items())
    model = network()
    torch.manual_seed(SEED)  # of a process alone; several draw from their common numbers
    error = (model(x) - targets).square().mean(dim=1)
    loss = error.mean() + share.ratio((error * counts).sum(), counts.sum())
    (loss * share.weight).backward()  # type: ignore[no-untyped-call]
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"loss": loss.detach() * share.weight, **found, **dict(model.named_buffers())}  # type: ignore[dict-item]


def one_of_two(rank: int, folder: Path) -> None:
    """What the process of a rank finds."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    share = BatchShare(SIZES, rank, CommonNumbers(SEED))
    rows = slice(0, SIZES[0]) if rank == 0 else slice(SIZES[0], N_ITEMS)
    with WholeBatch(share):
        found = step(share, rows)
    lonely = BatchShare((1, 0), rank, CommonNumbers(SEED))
    with WholeBatch(lonely):  # the second process has a copy that counts for nothing
        found |= {f"lonely {name}": value for name, value in step(lonely, slice(0, 1)).items()}
    numbers = torch.arange(10)[: 2 * SIZES[rank]] + 10 * rank  # two rows for each item
    found["gathered"] = share.whole(numbers)
    found["gathered bool"] = share.whole(numbers % 3 == 0)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def main(folder: Path) -> None:
    """Fork: the packages are imported once."""
    child = os.fork()
    one_of_two(int(child == 0), folder)
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
