"""
What a result depends on, by content and never by name alone.

Whatever stores, caches or resumes keeps these beside what it made: [`model_identity`] and [`scorer_identity`] of what
was loaded, [`data_identity`] of what was read, [`versions`] of what computed (or [`text_versions`], where nothing but
token ids came of it). Two that are equal give the same result; what changed between two runs makes them differ.
"""

from gpm_hf.identity.contents import file_digest, in_background, weights_digest
from gpm_hf.identity.data import data_identity, tied_to_versions
from gpm_hf.identity.models import model_digest, model_identity, scorer_identity
from gpm_hf.identity.software import text_versions, versions

__all__ = [
    "data_identity",
    "file_digest",
    "in_background",
    "model_digest",
    "model_identity",
    "scorer_identity",
    "text_versions",
    "tied_to_versions",
    "versions",
    "weights_digest",
]
