"""JUnit XML: a test case for each claim and loop, its evidence as properties, files of its run attached."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from xml.etree import ElementTree

from forkproof.reports.cases import FAILED, PASSED, SKIPPED, Case

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, and a server may say."""


def text(name: str, cases: Iterable[Case], begun: float, seconds: float) -> str:
    """The cases as one suite, which began then, in seconds since the epoch, and took so long."""
    cases = list(cases)
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(sum(case.outcome == FAILED for case in cases)),
        errors="0",
        skipped=str(sum(case.outcome == SKIPPED for case in cases)),
        timestamp=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(begun)),
        time=f"{seconds:.3f}",
    )
    for case in cases:
        element = ElementTree.SubElement(suite, "testcase", classname=f"forkproof.{name}", name=_xml(case.name))
        if case.properties:
            properties = ElementTree.SubElement(element, "properties")
            for key, value in case.properties.items():
                ElementTree.SubElement(properties, "property", name=key, value=_xml(value))
        if case.outcome != PASSED:
            why = _xml(case.text)
            ElementTree.SubElement(element, case.outcome, message=why.partition("\n")[0]).text = why
        if case.outcome == FAILED and case.attached:
            # So Jenkins and GitLab are told which files go with a test.
            told = "\n".join(f"[[ATTACHMENT|{path}]]" for path in case.attached)
            ElementTree.SubElement(element, "system-out").text = _xml(told)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    whole: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return whole.decode() + "\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("?", text)
