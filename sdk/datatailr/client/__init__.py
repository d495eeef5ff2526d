"""How the SDK and the two programs talk to a control plane.

Nothing here is part of the documented user API. The modules, from the bottom up:

- `config`: where the server is and which token to show (no gRPC).
- `connection`: one channel to one server, and the one wrapper that makes every call.
- `status`: the one table from gRPC status to the exceptions of `datatailr.errors`.
- `transfers`: content-addressed bytes up and down.
- `convert`, `answers`: between dataclasses or plain dictionaries and messages.
- `watching`: following a run or a build over cuts of the connection.
- `progress`, `display`: what a person sees meanwhile.
- `platform`: the life-cycle port of `datatailr.scheduler` over all of that.

Importing this package loads neither gRPC nor protobuf.
"""
