"""What is known before anything runs: models, GPUs, prices.

In: models.yaml and the data sheets. Out: Model, Gpu, ModelShape, Slo: frozen values; errors name the key's path.
"""
