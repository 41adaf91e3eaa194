"""An answer -> DICOM objects that belong into its study: a structured report (TID 1500), and pictures of key slices.

They carry the study's identifiers and the patient's identity, and say that they are not for diagnosis. Their UIDs are
hashes of what is in them, and they are dated as the study: the same input and weights give the same bytes.
"""

import hashlib
import io
import json
import uuid
from collections.abc import Sequence
from typing import Any

import cv2
import highdicom as hd
import numpy as np
import pandas as pd
from highdicom import sr
from highdicom.spatial import get_closest_patient_orientation
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from models.common.labels import ANY, LABELS
from models.inference.answer import WARNING, Answer
from models.preprocessing.windows import BRAIN
from models.reporting.dicom_sources import Source, Sources
from models.reporting.key_slices import KeySlice
from models.reporting.tints import under_heat
from models.training.run_record import project_version

MANUFACTURER, MODEL = "rsna-intracranial-hemorrhage", "predict.py"
NOT_FOR_DIAGNOSIS = "NOT FOR DIAGNOSIS - research software"
_REPORT, _PICTURES = 9001, 9002  # numbers of their series
_UNDATED = "19000101"  # where the study has no date
_OF_THE_PATIENT = (0x0010, 0x0012)  # groups of elements: the patient's, and those of a clinical trial
# SNOMED CT, and ICD-10 for what is not among the concepts that DICOM's tools and value sets publish.
FINDINGS = {
    "epidural": sr.CodedConcept("S06.4", "I10", "Epidural hemorrhage"),
    "intraparenchymal": sr.CodedConcept("274100004", "SCT", "Cerebral hemorrhage"),
    "intraventricular": sr.CodedConcept("I61.5", "I10", "Intracerebral hemorrhage, intraventricular"),
    "subarachnoid": sr.CodedConcept("21454007", "SCT", "Subarachnoid intracranial hemorrhage"),
    "subdural": sr.CodedConcept("35486000", "SCT", "Subdural intracranial hemorrhage"),
    "any": sr.CodedConcept("1386000", "SCT", "Intracranial hemorrhage"),
}
PROBABILITY = sr.CodedConcept("probability", "99RSNAICH", "Probability of the finding")
_ONE = sr.CodedConcept("1", "UCUM", "no units")
_PRESENT = sr.CodedConcept("52101004", "SCT", "Present")
_ABSENT = sr.CodedConcept("2667000", "SCT", "Absent")
_UNDECIDED = sr.CodedConcept("82334004", "SCT", "Indeterminate")


def make_objects(answer: Answer, keys: Sequence[KeySlice], sources: Sources) -> dict[str, bytes]:
    """The files to write by their names: report.dcm, and key_<slice>.dcm for each key slice."""
    header = next(iter(sources.of_slices.values())).header
    series = [str(header.StudyInstanceUID), str(header.SeriesInstanceUID)]
    identity = json.dumps([series, [fold.weights for fold in answer.folds], project_version(), answer.verdict])
    report = _report(answer, keys, sources, identity)
    pictures = {
        f"key_{key.row + 1:03d}.dcm": _picture(answer, key, sources, number + 1, identity)
        for number, key in enumerate(keys)
    }
    return {"report.dcm": _bytes(report), **{name: _bytes(picture) for name, picture in pictures.items()}}


def _report(answer: Answer, keys: Sequence[KeySlice], sources: Sources, identity: str) -> Dataset:
    content = _content(answer, keys, sources, identity)
    used = {id(source.header): source.header for source in sources.of_slices.values()}
    report = sr.Comprehensive3DSR(
        evidence=list(used.values()),
        content=content[0],
        series_instance_uid=_uid(identity, "series of reports"),
        series_number=_REPORT,
        sop_instance_uid=_uid(identity, "report", _values(answer)),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        series_description=f"Hemorrhage: report, {NOT_FOR_DIAGNOSIS}",
    )
    return _dated(report, next(iter(used.values())))


def _content(answer: Answer, keys: Sequence[KeySlice], sources: Sources, identity: str) -> sr.MeasurementReport:
    """The groups of the report: of the study one for each label, then one for each key slice."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_uid(identity, "device"), name=MODEL, manufacturer_name=MANUFACTURER, model_name=MODEL
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    assert answer.probability is not None  # it is answered
    groups = []
    for column, label in enumerate(LABELS):
        source = sources.of_slices[answer.slices["image_id"].iloc[answer.highest(column)]]
        groups.append(_of_study(answer, column, label, source, identity))
    groups += [_of_slice(answer, key, sources, identity) for key in keys]
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ComputedTomographyOfHead,
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
    )


def _of_study(
    answer: Answer, column: int, label: str, highest: Source, identity: str
) -> sr.MeasurementsAndQualitativeEvaluations:
    """The probability of a label in the study, with its most suspicious slice, and what that comes to."""
    assert answer.study_probability is not None  # it is answered
    value = float(answer.study_probability[column])
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(_uid(identity, "study", label), f"study: {label}"),
        finding_type=FINDINGS[label],
        algorithm_id=_algorithm(answer),
        measurements=[_measurement(value, [highest])],
        qualitative_evaluations=[sr.QualitativeEvaluation(FINDINGS[label], _presence(answer, column))],
        source_images=[_image(highest)],
    )


def _of_slice(
    answer: Answer, key: KeySlice, sources: Sources, identity: str
) -> sr.MeasurementsAndQualitativeEvaluations:
    """The probability of any hemorrhage in a key slice."""
    assert answer.probability is not None  # it is answered
    source = sources.of_slices[answer.slices["image_id"].iloc[key.row]]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(_uid(identity, "slice", key.row), f"slice {key.row + 1}: any"),
        finding_type=FINDINGS["any"],
        algorithm_id=_algorithm(answer),
        measurements=[_measurement(float(answer.probability[key.row, ANY]), [source])],
        source_images=[_image(source)],
    )


def _presence(answer: Answer, column: int) -> sr.CodedConcept:
    """Absent below the threshold at which 95 % of studies with hemorrhage are found, and every kind with it.

    Present from that on at which 95 % of those without get no alarm; a kind, where it is more probable than not, too.
    Undecided is what lies between, or where there is no such threshold.
    """
    assert answer.study_probability is not None  # it is answered
    if answer.alarm is not None and not answer.alarm:
        return _ABSENT
    specific = answer.points.get("specificity")
    sure = specific is not None and answer.any >= specific.threshold
    return _PRESENT if sure and (column == ANY or answer.study_probability[column] >= 0.5) else _UNDECIDED


def _measurement(value: float, sources: Sequence[Source]) -> sr.Measurement:
    images = [sr.SourceImageForMeasurement(*_reference(source)) for source in sources]
    return sr.Measurement(PROBABILITY, round(value, 6), _ONE, referenced_images=images)


def _image(source: Source) -> sr.SourceImageForMeasurementGroup:
    return sr.SourceImageForMeasurementGroup(*_reference(source))


def _reference(source: Source) -> tuple[str, str, list[int] | None]:
    header = source.header
    return header.SOPClassUID, header.SOPInstanceUID, None if source.frame is None else [source.frame]


def _algorithm(answer: Answer) -> sr.AlgorithmIdentification:
    names = ", ".join(fold.name for fold in answer.folds)
    return sr.AlgorithmIdentification(MODEL, project_version() or "unknown", parameters=[f"networks: {names}", WARNING])


def _picture(answer: Answer, key: KeySlice, sources: Sources, number: int, identity: str) -> Dataset:
    """A slice under heat, if there is some, with what it is written into it."""
    assert answer.probability is not None  # it is answered
    heat = np.zeros(key.hounsfield.shape) if key.heat is None else key.heat
    image = np.ascontiguousarray(under_heat(key.hounsfield, heat, BRAIN))
    text = f"slice {key.row + 1}: any {answer.probability[key.row, ANY]:.2f}"
    synthetic = ["SYNTHETIC - nobody was scanned"] if answer.synthetic else []
    for line, words in enumerate([NOT_FOR_DIAGNOSIS, text, *synthetic]):
        cv2.putText(image, words, (8, 20 + 22 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    pixels = np.ascontiguousarray(image[:, :, ::-1])  # from OpenCV's order to RGB
    source = sources.of_slices[answer.slices["image_id"].iloc[key.row]]
    directions = _directions(answer.slices.iloc[key.row])
    picture = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=source.header,
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=_uid(identity, "series of pictures"),
        series_number=_PICTURES,
        sop_instance_uid=_uid(identity, "picture", key.row, hashlib.sha256(pixels.tobytes()).hexdigest()),
        instance_number=number,
        manufacturer=MANUFACTURER,
        patient_orientation=directions or ("L", "P"),  # highdicom asks for one
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        series_description=f"Hemorrhage: key slices, {NOT_FOR_DIAGNOSIS}",
    )
    if directions is None:
        picture.PatientOrientation = []
    picture.BodyPartExamined = "HEAD"
    picture.BurnedInAnnotation = "NO"  # none that tells who it is
    shown = "The brain window." if key.heat is None else "Where a network looked, over the brain window."
    picture.DerivationDescription = f"{WARNING} {shown}"
    return _dated(picture, source.header)


def _directions(row: pd.Series) -> tuple[str, str] | None:
    """Where the rows and columns of a stored slice lead in the patient (PS3.3 C.7.6.1.1.1); None where unknown."""
    right, down = row.reindex([f"image_orientation_{i}" for i in range(6)]).to_numpy(float).reshape(2, 3)
    if np.isnan([right, down]).any():
        return None
    across, along, _ = get_closest_patient_orientation(np.column_stack([right, down, np.cross(right, down)]))
    return across.value, along.value


def _dated(made: Dataset, header: Dataset) -> Dataset:
    """The same object, dated as its study, whenever it is made; what the header says of the patient stays as it is."""
    date, time = str(header.get("StudyDate") or _UNDATED), str(header.get("StudyTime") or "000000")
    own = [name for name in made.dir("Date", "Time") if made[name].tag.group not in _OF_THE_PATIENT]
    for name in own:
        if name not in ("StudyDate", "StudyTime"):
            setattr(made, name, date if "Date" in name else time)
    for item in made.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = f"{date}{time}"
    return made


def _uid(*parts: Any) -> str:
    """A UID that a hash of some parts makes (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(parts)).int}"


def _values(answer: Answer) -> str:
    arrays = (answer.study_probability, answer.probability)
    return json.dumps([np.round(array, 6).tolist() for array in arrays if array is not None])


def _bytes(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
