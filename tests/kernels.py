"""One decoder per kernel this machine has, so that every test of decoding is a test of each of them."""

import os

import fastfeed


def with_kernel(name: str, source, **options) -> fastfeed.Decoder:
    """A decoder made while FASTFEED_SIMD names this kernel."""
    before = os.environ.get("FASTFEED_SIMD")
    os.environ["FASTFEED_SIMD"] = name
    try:
        return fastfeed.Decoder(source, **options)
    finally:
        if before is None:
            del os.environ["FASTFEED_SIMD"]
        else:
            os.environ["FASTFEED_SIMD"] = before


def decoders(source, **options) -> dict[str, fastfeed.Decoder]:
    """kernel -> decoder."""
    return {name: with_kernel(name, source, **options) for name in fastfeed.kernels()}
