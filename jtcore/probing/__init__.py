"""Probes of a finished run: what its adapters carry that nobody asked for."""
