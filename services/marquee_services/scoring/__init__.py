"""The scoring server that the CF service and the inference service both run.

`engine.py` scores with the models of one release and knows no gRPC; `servicer.py` converts
messages; `main.py` loads releases and starts the server. Imports `marquee_core` and `server`.
Start with `engine.py`.
"""
