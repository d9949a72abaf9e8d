"""Decide, and do nothing else: commands, journal, states, codec, retry.

Must not know I/O, clocks, threads, asyncio, any driver, nor any sibling layer.
"""
