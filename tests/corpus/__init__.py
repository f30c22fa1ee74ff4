"""Traffic of an invented OSCAR platform whose true counts are known.

Nothing here uses the parsers of `oscar_metrics`: what is true is kept from what was written.
"""

from tests.corpus.corpus import Corpus
from tests.corpus.entries import Call, Entry, Gateway

__all__ = ["Call", "Corpus", "Entry", "Gateway"]
