"""Does this background work survive this server?

    strategies -> Scenario -> launch -> History -> claims -> Verdict -> reports

Importing this package imports nothing else: what is patched, and when, is the thing measured.
"""

__version__ = "0.1.0"
