"""A small convolutional network with several heads, in numpy alone: enough to train the sample models.

Two 3x3 convolutions, a 2x2 max-pool and a dense layer make the base; each task adds one linear layer. Written out
by hand because a training framework would be a gigabyte of dependencies for a minute of work.
"""
import numpy as np

CHANNELS, FEATURES, SIDE = (8, 12), 32, 8
# Task: number of classes, and the class of a digit.
TASKS = {"digit": (10, lambda y: y), "parity": (2, lambda y: y % 2), "high": (2, lambda y: y >= 5)}


def patches(x):
    """3x3 neighbourhoods of x [n, c, h, w], zero-padded: [n, h * w, c * 9]. A convolution is a product with them."""
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h * w, c * 9)


def unpatches(grad, shape):
    """The transpose of patches(): adds the gradients of all neighbourhoods back to their pixels."""
    n, c, h, w = shape
    grad = grad.reshape(n, h, w, c, 3, 3)
    out = np.zeros((n, c, h + 2, w + 2), grad.dtype)
    for i in range(3):
        for j in range(3):
            out[:, :, i:i + h, j:j + w] += grad[..., i, j].transpose(0, 3, 1, 2)
    return out[:, :, 1:-1, 1:-1]


def blocks(x):
    """2x2 blocks of x [n, c, 8, 8], flattened: [n, c, 4, 4, 4]."""
    half = SIDE // 2
    return x.reshape(len(x), -1, half, 2, half, 2).transpose(0, 1, 2, 4, 3, 5).reshape(len(x), -1, half, half, 4)


def unblocks(x):
    half = SIDE // 2
    return x.reshape(len(x), -1, half, half, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(len(x), -1, SIDE, SIDE)


def softmax(logits):
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


class Adam:
    """The optimiser, with the usual constants."""

    def __init__(self, rate=2e-3):
        self.rate, self.step, self.moments = rate, 0, {}

    def update(self, key, values, grad):
        m, v = self.moments.setdefault(key, (np.zeros_like(values), np.zeros_like(values)))
        m += 0.1 * (grad - m)
        v += 0.001 * (grad * grad - v)
        m_hat, v_hat = m / (1 - 0.9 ** self.step), v / (1 - 0.999 ** self.step)
        values -= self.rate * m_hat / (np.sqrt(v_hat) + 1e-8)


class Network:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        flat = CHANNELS[1] * (SIDE // 2) ** 2
        sizes = {"conv1": (CHANNELS[0], 9), "conv2": (CHANNELS[1], CHANNELS[0] * 9), "dense": (FEATURES, flat)}
        sizes.update({task: (classes, FEATURES) for task, (classes, _) in TASKS.items()})
        self.w = {k: (self.rng.standard_normal(s) * np.sqrt(2 / s[1])).astype(np.float32) for k, s in sizes.items()}
        self.b = {k: np.zeros(s[0], np.float32) for k, s in sizes.items()}

    def copy(self, seed):
        """A network that starts from this one's weights and goes its own way."""
        other = Network(seed)
        other.w, other.b = ({k: v.copy() for k, v in part.items()} for part in (self.w, self.b))
        return other

    def _linear(self, name, x):
        return x @ self.w[name].T + self.b[name]

    def _convolve(self, name, neighbourhoods):
        out = np.maximum(self._linear(name, neighbourhoods), 0)
        return out.transpose(0, 2, 1).reshape(len(out), -1, SIDE, SIDE)

    def base(self, x):
        """Features of x, and what the way back needs of the way there."""
        c1 = patches(x)
        a1 = self._convolve("conv1", c1)
        c2 = patches(a1)
        a2 = self._convolve("conv2", c2)
        pools = blocks(a2)
        flat = pools.max(axis=-1).reshape(len(x), -1)
        return np.maximum(self._linear("dense", flat), 0), (c1, a1, c2, a2, pools, flat)

    def predict(self, task, x):
        return softmax(self._linear(task, self.base(x)[0]))

    def accuracy(self, task, x, y):
        return float(np.mean(self.predict(task, x).argmax(axis=1) == TASKS[task][1](y)))

    def gradients(self, x, targets):
        """Gradients of the summed cross-entropy of all tasks: layer name to (weights, biases)."""
        n, grads = len(x), {}
        features, (c1, a1, c2, a2, pools, flat) = self.base(x)

        def through(name, inputs, d):
            grads[name] = (d.T @ inputs, d.sum(axis=0))
            return d @ self.w[name]

        def pixels_first(d):
            return d.reshape(n, -1, SIDE * SIDE).transpose(0, 2, 1).reshape(n * SIDE * SIDE, -1)

        d_features = 0
        for task, target in targets.items():
            p = softmax(self._linear(task, features))
            p[np.arange(n), target] -= 1
            d_features = d_features + through(task, features, p / n)
        d = through("dense", flat, d_features * (features > 0)).reshape(*pools.shape[:-1], 1)
        winner = np.arange(4) == pools.argmax(axis=-1)[..., None]
        d = unblocks(d * winner) * (a2 > 0)
        d = through("conv2", c2.reshape(n * SIDE * SIDE, -1), pixels_first(d))
        d = unpatches(d.reshape(n, SIDE * SIDE, -1), a1.shape) * (a1 > 0)
        through("conv1", c1.reshape(n * SIDE * SIDE, -1), pixels_first(d))
        return grads

    def train(self, x, y, tasks, epochs, frozen=()):
        targets = {task: TASKS[task][1](y).astype(np.int64) for task in tasks}
        adam = Adam()
        for _ in range(epochs):
            order = self.rng.permutation(len(x))
            for start in range(0, len(x), 64):
                rows = order[start:start + 64]
                adam.step += 1
                for name, (dw, db) in self.gradients(x[rows], {t: v[rows] for t, v in targets.items()}).items():
                    if name not in frozen:
                        adam.update((name, "w"), self.w[name], dw)
                        adam.update((name, "b"), self.b[name], db)
        return self
