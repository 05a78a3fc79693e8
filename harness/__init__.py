"""Serve a model with Text Generation Inference, find its limits, load it, and report numbers that can be trusted.

The map. Data flows one way; every stage hands on one named type:

    models.yaml -> catalog --Model, Gpu--> stack --Endpoint--> preflight   may we measure at all?
                                             |
    locustfiles -> workload --Requests--+    v
                   arrivals --moments---+-> load --Journal of RequestRecords--> stats --Summary--> report

`probe` asks which flags to try next, `commands` drive, `simulator` says how an engine behaves, `emulator` is that
simulator behind TGI's HTTP interface. docs/architecture.md says who may import whom, and why.
"""

__version__ = "0.1.0"
