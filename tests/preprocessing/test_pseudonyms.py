"""Laws of pseudonyms: the challenge's own names stay, every other identifier becomes a keyed hash."""

import re
from pathlib import Path

import pandas as pd
from hypothesis import example, given
from hypothesis import strategies as st

from models.preprocessing.pseudonyms import Names, Pseudonyms, read_key

PSEUDONYMS = Pseudonyms(b"key")
identifiers = st.text(min_size=1, max_size=40)
OF_CHALLENGE = Names("ID_47a2de312", "ID_16e0773a58", "ID_52a81d1c3f", "ID_ae549afd")


def test_the_names_of_the_challenge_stay():
    assert PSEUDONYMS.names(OF_CHALLENGE) == OF_CHALLENGE
    assert PSEUDONYMS.image("ID_47a2de312") == "ID_47a2de312"
    challenge = Pseudonyms(b"key", challenge=True)
    assert challenge.file(Path("/data/stage_2_train/ID_47a2de312.dcm"), Path("/data")) == "ID_47a2de312.dcm"


@given(identifiers)
def test_own_identifiers_do_not_shine_through(identifier):
    for name in (
        PSEUDONYMS.hash(identifier),
        PSEUDONYMS.image(identifier),
        *PSEUDONYMS.names(Names(*4 * [identifier])),
    ):
        assert name != identifier
        assert re.fullmatch("ID_[0-9a-f]{16}", name)


@given(identifiers, identifiers)
def test_names_are_the_same_for_the_same_identifier_alone(one, other):
    assert (PSEUDONYMS.hash(one) == PSEUDONYMS.hash(other)) == (one == other)
    assert PSEUDONYMS.hash(one) != Pseudonyms(b"another key").hash(one)


@given(
    st.lists(
        st.one_of(identifiers.filter(lambda text: not re.search(r"_\d{4}$", text)), st.sampled_from(OF_CHALLENGE)),
        min_size=1,
    )
)
@example(["\n"])  # an end of a line is none of the text
def test_many_images_are_called_as_each_is(images):
    assert list(PSEUDONYMS.images(pd.Series(images, dtype=str))) == [PSEUDONYMS.image(image) for image in images]


def test_frames_are_called_after_their_image():
    names = PSEUDONYMS.images(pd.Series(["ID_47a2de312_0001", "1.2.3_0012", "ID_47a2de312"]))
    assert list(names) == ["ID_47a2de312_0001", PSEUDONYMS.hash("1.2.3") + "_0012", "ID_47a2de312"]


def test_a_patient_of_the_challenges_form_is_hashed_in_own_data():
    own = PSEUDONYMS.names(OF_CHALLENGE._replace(image_id="1.2.840.113619.2.1"))
    assert not set(own) & set(OF_CHALLENGE)
    assert PSEUDONYMS.names(OF_CHALLENGE._replace(patient_id="DOE^JANE")).patient_id != "DOE^JANE"


def test_what_is_not_known_has_no_name():
    assert PSEUDONYMS.names(Names("1.2.3", "1.2.4", "", ""))[2:] == ("", "")


def test_files_of_own_data_are_not_called_by_their_names():
    name = PSEUDONYMS.file(Path("/data/DOE JANE/IM-1"), Path("/data"))
    assert name.startswith("file_")
    assert "DOE" not in name
    assert name == PSEUDONYMS.file(Path("/moved/DOE JANE/IM-1"), Path("/moved"))


def test_the_key_is_secret_and_kept(tmp_path):
    path = tmp_path / "work" / "pseudonyms.key"
    key = read_key(path)
    assert len(key) == 32
    assert read_key(path) == key != read_key(tmp_path / "other.key")
    assert path.stat().st_mode & 0o077 == 0
