"""Teacher forcing is weighted by tokens, and does not depend on how rows are batched."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fettle.data.encode import Encoded
from fettle.data.store import Collector
from fettle.evaluation.likelihood import likelihood


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, max_position_embeddings=64, **sizes)).eval()


@pytest.fixture(scope="module")
def split():
    collector = Collector()
    rows = [
        Encoded(list(range(3, 3 + size)), [False] + [position % 2 == 0 for position in range(size - 1)])
        for size in (3, 9, 20, 5)
    ]
    collector.add([0, 1, 2, 3], rows)
    return collector.finish({})


def test_equals_the_mean_over_all_labels(model, split):
    losses = []
    for row in range(len(split)):
        ids, mask = (torch.tensor(part.tolist()) for part in split.example(row))
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        own = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
        losses += own[mask[1:]].tolist()
    with torch.no_grad():
        found = likelihood(model, split, "cpu", 1000).metrics()
    assert found["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert found["perplexity"] == pytest.approx(torch.tensor(found["loss"]).exp().item(), rel=1e-5)


@pytest.mark.parametrize(("tokens", "rows"), [(10, None), (1000, 1), (25, 2)])
def test_batching_changes_nothing(model, split, tokens, rows):
    with torch.no_grad():
        whole, parts = likelihood(model, split, "cpu", 1000), likelihood(model, split, "cpu", tokens, rows)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-4)
    assert (parts.correct, parts.labels) == (whole.correct, whole.labels)


def test_only_the_first_batches_on_request(model, split):
    with torch.no_grad():
        assert likelihood(model, split, "cpu", 1000, batch_size=1, most=2).labels < 18
