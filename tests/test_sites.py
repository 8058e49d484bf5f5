import torch

from lm_core.model.sites import ForwardContext, Sites

CONTEXT = ForwardContext(None, training=False)


def test_a_site_without_hooks_passes_the_very_same_tensor():
    site = Sites().add("here", "(batch,)")
    x = torch.ones(2)
    assert site(x, CONTEXT) is x


def test_hooks_work_in_a_row_and_none_means_no_change():
    site = Sites().add("here", "(batch,)")
    seen = []
    site.hooks += [
        lambda site, x, context: x + 1,
        lambda site, x, context: seen.append((site.name, x.tolist())),
        lambda site, x, context: x * 10,
    ]
    assert site(torch.zeros(1), CONTEXT).tolist() == [10.0]
    assert seen == [("here", [1.0])]


def test_sites_are_numbered_in_their_order():
    sites = Sites()
    for name in ("a", "b", "c"):
        sites.add(name, "(batch,)")
    assert sites.names() == ["a", "b", "c"]
    assert [sites[name].index for name in sites.names()] == [0, 1, 2]
