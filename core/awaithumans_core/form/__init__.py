"""The form that a reviewer fills in, derived from the response class, and the conversion of what a form submits.

Without a `form_definition` the dashboard shows the payload but no input, so every task carries one. Form inputs submit
text. The text of a number, of a select whose options are numbers, or of a text box that represents a list, is therefore
converted back to what the response class expects.
"""

from awaithumans_core.form.definition import FORM_VERSION, form_definition
from awaithumans_core.form.hints import label_of
from awaithumans_core.form.inputs import typed_fields
from awaithumans_core.form.markers import currency, time_zone
from awaithumans_core.form.reading import answer_from_form, read_form

__all__ = [
    "FORM_VERSION",
    "answer_from_form",
    "currency",
    "form_definition",
    "label_of",
    "read_form",
    "time_zone",
    "typed_fields",
]
