"""A Flax router of a user's own, in a module that another process can import."""

import jax
from flax import nnx


class Gated(nnx.Module):
    """One hidden layer with dropout, and a gate that is no parameter's shape."""

    def __init__(self, dim, num_models, *, slope=1.0, rngs):
        self.dim, self.num_models, self.slope = dim, num_models, slope
        self.hidden = nnx.Linear(dim, 6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(6, num_models, rngs=rngs)

    @property
    def arguments(self):
        return {"dim": self.dim, "num_models": self.num_models, "slope": self.slope}

    def __call__(self, embeddings):
        x = self.dropout(jax.nn.relu(self.hidden(embeddings)))
        return jax.nn.sigmoid(self.slope * self.out(x))


class Unsaid(nnx.Module):
    """A router that does not say what it is made with."""

    def __init__(self, dim, *, rngs):
        self.out = nnx.Linear(dim, 3, rngs=rngs)

    def __call__(self, embeddings):
        return jax.nn.sigmoid(self.out(embeddings))
