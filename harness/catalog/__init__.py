"""What we know before anything runs.

In: models.yaml and the data sheets. Out: Model, Gpu, ModelShape, Slo: frozen values; errors name the key's path.
"""
