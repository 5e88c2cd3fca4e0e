"""--mode=latents: what stochastic latents hold."""
