"""The three services: `gateway`, `cf` and `inference`.

Callers use the gateway, which collects scores from the CF service and the inference service.
`scoring` is the server that these two run, and `server` is the code that all servers share.
`errors.py` has the gRPC status of every error, and `promotion.py` verifies and promotes releases.
May import `marquee_core` and the generated code in `marquee.v1`, but never the trainer. Start with
`gateway/servicer.py` to see what callers get, or `commands/serve.py` to see how a service starts.
"""
