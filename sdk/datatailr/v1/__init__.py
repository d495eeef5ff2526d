"""Generated stubs of the package datatailr.v1; see `make protos`."""
