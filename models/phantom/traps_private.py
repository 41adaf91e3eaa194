"""The trap of private text: what a hospital's headers say about people and places. See traps.py."""

from pydicom.dataset import Dataset

from models.phantom.draft import Draft, Items, edited

CANARY = "CANARY^private_text"  # not a date, not a number: whoever shows it has shown what was private

KEYWORDS = """
PatientName PatientBirthDate PatientBirthTime PatientAge PatientAddress PatientTelephoneNumbers PatientComments
PatientMotherBirthName PatientBirthName OtherPatientIDs OtherPatientNames IssuerOfPatientID EthnicGroup Occupation
MedicalRecordLocator InsurancePlanIdentification MilitaryRank CountryOfResidence RegionOfResidence SmokingStatus
PatientReligiousPreference ResponsiblePerson ResponsibleOrganization AdditionalPatientHistory Allergies MedicalAlerts
AdmissionID AdmittingDiagnosesDescription CurrentPatientLocation PatientState PatientInstitutionResidence VisitComments
AccessionNumber StudyID StudyDate StudyTime SeriesDate SeriesTime AcquisitionDate AcquisitionTime ContentDate
InstitutionName InstitutionAddress InstitutionalDepartmentName StationName Manufacturer ManufacturerModelName
DeviceSerialNumber SoftwareVersions ReferringPhysicianName ReferringPhysicianAddress RequestingPhysician
PerformingPhysicianName PhysiciansOfRecord NameOfPhysiciansReadingStudy OperatorsName ScheduledPerformingPhysicianName
RequestingService StudyDescription SeriesDescription ProtocolName ImageComments ReasonForStudy StudyComments
RequestedProcedureDescription RequestedProcedureComments PerformedProcedureStepID PerformedProcedureStepDescription
CommentsOnThePerformedProcedureStep AcquisitionComments DerivationDescription ContrastBolusAgent BodyPartExamined
ConvolutionKernel WindowCenterWidthExplanation InterpretationText InterpretationAuthor TextString
"""


def private_text(draft: Draft) -> Items:
    """All files hold text in all elements, also nested and private ones, in which a hospital's header may hold it.

    The RSNA has taken them out of its files: nobody notices there what would get out here.
    """
    for series in draft.series.values():
        for piece in series:
            with edited(piece.path) as data:
                _fill(data)
        yield series[0].series


def _fill(data: Dataset) -> None:
    for keyword in KEYWORDS.split():
        setattr(data, keyword, CANARY)
    nested = Dataset()
    nested.PatientID = CANARY
    data.OtherPatientIDsSequence = [nested]
    request = Dataset()
    request.RequestedProcedureDescription = request.ScheduledProcedureStepDescription = CANARY
    data.RequestAttributesSequence = [request]
    block = data.private_block(0x0009, CANARY, create=True)
    block.add_new(0x01, "LO", CANARY)
    block.add_new(0x02, "OB", CANARY.encode() + b" ")
    data.file_meta.SourceApplicationEntityTitle = CANARY
