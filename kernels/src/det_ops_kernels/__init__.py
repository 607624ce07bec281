"""The compiled kernels of det-ops, in `libraries/`. `det_ops.native.packaged` reads them without importing this."""

__version__ = "0.1.0"
