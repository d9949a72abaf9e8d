"""Values as JSON text and back: the same value and the same types, or an error before anything is recorded.

It knows types and nothing else: no clock, no storage, no network, no thread.

    codec       the front: `Codec`, for one value, one error
    signature   the arguments and the result of one function, and their digest
    hints       what annotations say
    form        how the values of one annotation are recorded: typed where msgspec is faithful, else tagged
    exact       which values need no proof that they come back the same
    tagged      the self-describing form: `{"$": "tuple", "v": [1, 2]}`
    kinds       its closed table of builtin types
    records     its closed table of families of classes: dataclasses, enums, attrs, ...
    trust       which classes a row may name
    failures    exceptions, rebuilt without running their `__init__`
    refusal     why not, and where
    secret      `Secret[T]`, and the cipher that seals it
"""

from operon.core.codec.codec import Codec
from operon.core.codec.hints import Unannotated
from operon.core.codec.secret import Secret
from operon.core.codec.signature import Signature

__all__ = ["Codec", "Secret", "Signature", "Unannotated"]
