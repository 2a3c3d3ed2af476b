"""The benchmark (`make bench`): the gateway, a bare floor and the direct connection, side by side in one run.

It measures and prints; it never asserts a time. Nothing here is imported by the product.
"""
