"""The chunk autoencoder: K tokens to one latent vector and back (paper section 2)."""

from calm_bench.autoencoder.model import Autoencoder, load_autoencoder

__all__ = ["Autoencoder", "load_autoencoder"]
