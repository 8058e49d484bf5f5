import torch
from torch import nn

from lm_core.parallel.shards import (
    gathered,
    is_sharded,
    own_share,
    shard_model,
    shared_like,
    whole,
)
from tests.processes import together


class Rows(nn.Module):
    """Blocks with fewer rows than processes, as many, and more."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(4, rows) for rows in (1, 2, 5)])
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return sum(block(x).sum() for block in self.blocks) * self.scale.sum()


def seeded():
    torch.manual_seed(3)
    return Rows()


def test_one_process_keeps_everything_as_it_is():
    model = seeded()
    weight = model.scale
    assert not is_sharded(weight)
    assert own_share(weight) is weight
    assert whole(weight) is weight
    assert shared_like(weight, weight) is weight
    with gathered(model):
        assert model.scale is weight


def settings(model):
    """Which parts give their weights back after forward; PyTorch has no public word for it."""
    parts = [module for module in model.modules() if hasattr(module, "unshard")]
    states = [part._get_fsdp_state()._fsdp_param_group for part in parts]
    return [each and each.post_forward_mesh_info is not None for each in states]


def spread(group):
    """Spreads a model, and looks at it in all the ways there are."""
    reference = seeded()
    model = seeded()
    shard_model(model)
    shares = {name: own_share(p.detach()).numel() for name, p in model.named_parameters()}
    found = {"all sharded": all(is_sharded(p) for p in model.parameters()), "shares": shares}
    pairs = list(zip(model.parameters(), reference.parameters(), strict=True))
    found["whole"] = all(torch.equal(whole(p.detach()), q) for p, q in pairs)
    found["like"] = all(
        torch.equal(whole(shared_like(q.detach() * 2, p.detach())), q * 2) for p, q in pairs
    )
    # FSDP2 settles it in the first forward.
    model(torch.ones(2, 4)).backward()
    before = settings(model)
    for _ in range(2):  # It can be spread and gathered again and again, in between training.
        model(torch.ones(2, 4)).backward()
        with gathered(model), torch.inference_mode():
            found["gathered"] = all(
                torch.equal(p, q)
                for p, q in zip(model.parameters(), reference.parameters(), strict=True)
            )
            found["computes"] = torch.equal(model(torch.ones(2, 4)), reference(torch.ones(2, 4)))
    found["as before"] = settings(model) == before
    for p in model.parameters():
        own_share(p.detach()).mul_(3)
    found["memory is shared"] = all(torch.equal(whole(p.detach()), q * 3) for p, q in pairs)
    return found


def test_two_processes_have_a_share_each_and_the_whole_on_demand():
    found = together(2, spread)
    for name in (
        "all sharded",
        "whole",
        "like",
        "gathered",
        "computes",
        "as before",
        "memory is shared",
    ):
        assert all(each[name] for each in found), name
    for name, parameter in seeded().named_parameters():
        assert sum(each["shares"][name] for each in found) == parameter.numel()
    assert found[1]["shares"]["blocks.0.weight"] == 0
