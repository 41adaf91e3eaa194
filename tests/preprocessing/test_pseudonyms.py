"""Laws of pseudonyms: the challenge's own names stay, every other identifier becomes a keyed hash."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from models.preprocessing.pseudonyms import Pseudonyms, read_key

CHALLENGE, OWN = Pseudonyms(b"key", challenge=True), Pseudonyms(b"key", challenge=False)
identifiers = st.text(min_size=1, max_size=40)


def test_the_names_of_the_challenge_stay():
    assert CHALLENGE("ID_ae549afd") == CHALLENGE.image("ID_ae549afd") == "ID_ae549afd"
    assert CHALLENGE.file(Path("/data/stage_2_train/ID_47a2de312.dcm\n"), Path("/data")) == "ID_47a2de312.dcm"


@given(identifiers)
def test_a_name_is_plain_whatever_the_identifier(identifier):
    for name in (CHALLENGE(identifier), CHALLENGE.image(identifier), OWN(identifier), OWN.image(identifier)):
        assert name.isascii()
        assert name.replace("_", "").replace("-", "").replace(".", "").isalnum()


@given(identifiers)
def test_own_identifiers_do_not_shine_through(identifier):
    assert OWN(identifier) != identifier
    assert OWN(identifier).startswith("ID_")
    assert len(OWN(identifier)) == 19


@given(identifiers, identifiers)
def test_names_are_the_same_for_the_same_identifier_alone(one, other):
    assert (OWN(one) == OWN(other)) == (one == other)
    assert OWN(one) != Pseudonyms(b"another key", challenge=False)(one)


def test_a_patient_of_the_challenges_form_is_hashed_in_own_data():
    assert OWN("ID_ae549afd") != "ID_ae549afd"
    assert CHALLENGE("DOE^JANE") != "DOE^JANE"


def test_files_of_own_data_are_not_called_by_their_names():
    name = OWN.file(Path("/data/DOE JANE/IM-1"), Path("/data"))
    assert name.startswith("file_")
    assert "DOE" not in name
    assert name == OWN.file(Path("/moved/DOE JANE/IM-1"), Path("/moved"))


def test_the_key_is_secret_and_kept(tmp_path):
    path = tmp_path / "work" / "pseudonyms.key"
    key = read_key(path)
    assert len(key) == 32
    assert read_key(path) == key != read_key(tmp_path / "other.key")
    assert path.stat().st_mode & 0o077 == 0
