"""`Topic.admin_forms` is checked when the class is created."""

from typing import Any

import pytest
from django import forms

from realtime.exceptions import InvalidEventName
from realtime.topics import Topic
from tests.testapp.models import Note


class NoteForm(forms.ModelForm):
    class Meta:
        model = Note
        fields = ["text"]


class TextForm(forms.Form):
    text = forms.CharField()


class PictureForm(forms.Form):
    title = forms.CharField()
    picture = forms.ImageField()


def declare(admin_forms: Any) -> type[Topic]:
    return type("NoteTopic", (Topic,), {"admin_forms": admin_forms})


@pytest.mark.parametrize("form", [TextForm, NoteForm])
def test_the_forms_are_copied_and_read_only(form: Any) -> None:
    given = {"written": form}
    topic = declare(given)
    given.clear()
    assert topic.admin_forms == {"written": form}
    with pytest.raises(TypeError):
        topic.admin_forms["read"] = form  # type: ignore[index]


def test_a_subclass_inherits_its_forms() -> None:
    parent = declare({"written": TextForm})
    assert type("Child", (parent,), {}).admin_forms == {"written": TextForm}
    assert declare({}).admin_forms == {} == Topic.admin_forms


@pytest.mark.parametrize("wrong", [None, [TextForm], "written", TextForm])
def test_a_value_that_is_not_a_mapping_is_rejected(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"NoteTopic\.admin_forms is .*; set it to a dict such as"):
        declare(wrong)


@pytest.mark.parametrize("wrong", [TextForm(), "TextForm", Note, forms.CharField()])
def test_an_entry_that_is_not_a_form_class_is_rejected(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"admin_forms\['written'\] is .*; set it to a subclass"):
        declare({"written": wrong})


def test_an_invalid_event_name_is_rejected() -> None:
    with pytest.raises(InvalidEventName, match="note written"):
        declare({"note written": TextForm})


def test_a_form_with_a_file_field_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"PictureForm has a file field \(picture\)"):
        declare({"drawn": PictureForm})


def test_a_misspelt_attribute_is_rejected() -> None:
    with pytest.raises(TypeError, match="did you mean 'admin_forms'"):
        type("NoteTopic", (Topic,), {"admin_form": {"written": TextForm}})
