"""RouterDC's losses against their formulas written in torch, values and gradients, and in plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from racer_jax.routers.contrastive import (
    Contrast,
    Neighbors,
    contrast,
    cosines,
    draw_neighbors,
    sample_llm_loss,
    sample_sample_loss,
)

pytestmark = pytest.mark.long


def plain_contrast(row, num_positive, num_negative):
    """Best first, ties by place; score 0 never pulls, above one half never pushes."""
    order = sorted(range(len(row)), key=lambda m: (-row[m], m))
    positive = [m for m in order[:num_positive] if row[m] > 0]
    negative = [m for m in order[-num_negative:] if row[m] <= 0.5]
    return positive, negative


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    scores = np.where(rng.random((16, 7)) < 0.4, 0, rng.random((16, 7))).astype(np.float32)
    scores[0], scores[1], scores[2] = 0, 1, [0, 0, 0, 1, 1, 1, 1]
    hidden = rng.normal(size=(16, 12)).astype(np.float32)
    return hidden, rng.normal(size=(7, 12)).astype(np.float32), scores


@pytest.mark.parametrize(("num_positive", "num_negative"), [(3, 3), (1, 2), (7, 7)])
def test_contrast_equals_the_plain_order(batch, num_positive, num_negative, transform):
    pairs = transform(lambda s: contrast(s, num_positive, num_negative))(batch[2])
    for row, *result in zip(batch[2], pairs.positive, pairs.negative, strict=True):
        expected = plain_contrast(row, num_positive, num_negative)
        assert [np.flatnonzero(mask).tolist() for mask in result] == [
            sorted(models) for models in expected
        ]


def test_random_ties_are_fair():
    scores = jnp.tile(jnp.array([[1.0, 1, 1, 0, 0]]), (20_000, 1))
    pairs = contrast(scores, 1, 1, jax.random.key(0))
    np.testing.assert_array_equal(pairs.positive.sum(1), 1)
    rate = pairs.positive.mean(0)
    # 5 standard errors of a share of 1/3 in 20,000.
    np.testing.assert_allclose(rate, [1 / 3] * 3 + [0, 0], atol=5 * (2 / 9 / 20_000) ** 0.5)


@pytest.mark.extra
def test_losses_and_gradients_equal_torch(batch):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    functional = torch.nn.functional
    hidden, models, scores = batch
    temperature = 0.7
    neighbors = Neighbors(
        jnp.array([*range(1, 16), 0]), jnp.array([[(i + j) % 16 for j in (3, 5, 8)] for i in range(16)]),
        jnp.arange(16) != 4,
    )  # fmt: skip

    def ours(hidden, models):
        logits = cosines(hidden, models) / temperature
        one = sample_llm_loss(logits, contrast(jnp.asarray(scores)))
        return one + 2 * sample_sample_loss(hidden, neighbors, temperature)

    h, m = (torch.tensor(a, requires_grad=True) for a in (hidden, models))
    z = functional.cosine_similarity(h[:, None], m[None], dim=-1) / temperature
    loss = 0
    for i, row in enumerate(scores):
        positive, negative = plain_contrast(row, 3, 3)
        for p in positive:
            logits = torch.cat([z[i, p : p + 1], z[i, negative]])
            loss = loss - torch.log_softmax(logits, dim=0)[0] / 16
    for i in range(16):
        if i != 4:
            others = [int(neighbors.positive[i]), *neighbors.negative[i].tolist()]
            similar = functional.cosine_similarity(h[i][None], h[others], dim=-1) / temperature
            loss = loss - 2 * torch.log_softmax(similar, dim=0)[0] / 15
    loss.backward()

    value, grads = jax.jit(jax.value_and_grad(ours, argnums=(0, 1)))(hidden, models)
    assert abs(float(value) - loss.item()) < 1e-5
    for grad, tensor in zip(grads, (h, m), strict=True):
        np.testing.assert_allclose(grad, tensor.grad.numpy(), atol=1e-6)


def test_loss_is_zero_where_nobody_pulls_or_pushes():
    logits = jnp.array([[0.3, -0.2]])
    for scores in ([[0.0, 0.0]], [[1.0, 1.0]]):
        assert float(sample_llm_loss(logits, contrast(jnp.array(scores)))) == pytest.approx(
            0, abs=1e-6
        )
    no_pairs = Contrast(jnp.zeros((1, 2), bool), jnp.zeros((1, 2), bool))
    assert float(sample_llm_loss(logits, no_pairs)) == 0


def test_gradient_of_a_zero_row_is_finite():
    grad = jax.grad(lambda h: cosines(h, jnp.eye(3)).sum())(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(jnp.isfinite(grad), True)
    np.testing.assert_array_equal(cosines(jnp.zeros((1, 3)), jnp.eye(3)), 0)


def test_drawn_neighbors():
    clusters = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3] * 3)[:28]
    clusters[27] = 9  # alone in its cluster
    keys = jax.random.split(jax.random.key(0), 50)
    drawn = jax.jit(jax.vmap(draw_neighbors, in_axes=(0, None)))(keys, jnp.asarray(clusters))
    positive, negative, valid = map(np.asarray, drawn)
    assert not valid[:, 27].any()
    assert valid[:, :27].all()
    assert (clusters[positive[:, :27]] == clusters[:27]).all()
    assert (positive[:, :27] != np.arange(27)).all()
    assert (clusters[negative] != clusters[:, None]).all()
    assert (np.diff(np.sort(negative[:, :27], axis=2), axis=2) > 0).all()
    # Every possible partner is drawn some time.
    assert set(positive[:, 0]) == set(np.flatnonzero(clusters == 0)) - {0}


def test_one_cluster_has_no_negatives():
    drawn = draw_neighbors(jax.random.key(0), jnp.zeros(8, jnp.int32))
    assert not bool(drawn.valid.any())
    assert float(sample_sample_loss(jnp.eye(8), drawn)) == 0
