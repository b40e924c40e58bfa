"""The three services: `gateway`, `cf` and `inference`.

`scoring` is the server that the CF and inference services both run, `server` what every server
has. Imports `marquee_core` and the generated code in `marquee.v1`, never the trainer. Start with
`gateway/servicer.py` for what callers see, `cli.py` for how a service starts.
"""
